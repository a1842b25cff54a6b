"""Tokens read on demand are those that a store's means were made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probing.backbones import load_backbone, resolve
from probing.errors import UserError
from probing.features.tokens import check_same_model, read_image_tokens, settings_of
from tests.fakes.tiny_sd3 import T5_LENGTH
from tests.features.test_extraction import make_data, run


@pytest.fixture(scope="module")
def backbone(tiny_folder):
    cpu = torch.device("cpu")
    return load_backbone(resolve(str(tiny_folder)), device=cpu, compute_dtype=torch.float32, t5_length=T5_LENGTH)


@pytest.fixture(scope="module")
def store(backbone, tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "tiny.zarr"
    return run(backbone.spec, backbone, make_data(), path, pair_noise="shared", seed=3).store


def test_their_mean_is_the_stores(backbone, store):
    settings = settings_of(store.attributes)
    assert settings.pair_noise == "shared" and settings.seed == 3 and settings.resolution == 16
    items = ["item7", "item0", "item3"]
    ids = list(store.item_ids)
    for sigma, block in ((0.005, 1), (0.6, 3)):
        tokens = read_image_tokens(backbone.spec, backbone, make_data(), items, settings, sigma=sigma, block=block)
        assert tokens.dtype == np.float32
        expected = store.read("image", "mean", sigma, block)[[ids.index(item) for item in items]]
        np.testing.assert_allclose(tokens.mean(axis=1), expected, rtol=1e-4, atol=1e-4)
        stored = store.read("image", "tokens", sigma, block)[[ids.index(item) for item in items]]
        np.testing.assert_allclose(tokens, stored, rtol=2e-3, atol=2e-2)


def test_other_models_and_items_are_refused(backbone, store):
    check_same_model(store.attributes, backbone)
    parts = {**store.attributes["parts"], "vae": "x"}
    with pytest.raises(UserError, match=r"another model: the files of vae differ; give the same by --model"):
        check_same_model({**store.attributes, "parts": parts}, backbone)
    with pytest.raises(UserError, match="has no item nobody; give the data set"):
        read_image_tokens(
            backbone.spec, backbone, make_data(), ["nobody"], settings_of(store.attributes), sigma=0.1, block=0
        )
    with pytest.raises(UserError, match="settings t5_length are missing"):
        settings_of({k: v for k, v in store.attributes.items() if k != "t5_length"})
