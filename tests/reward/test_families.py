"""Rewards on further families: cached and live scores, gradients, adapters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import probing
from probing.reward import AdapterSettings, AdaptSettings, LatentReward, adapt, train_reward
from probing.reward.adapter import add_adapter
from tests.fakes.tiny_pipelines import write

FAMILIES = ["flux-dev", "qwen-image", "z-image", "flux2-klein", "chroma"]
READ = {
    "sigmas": (0.005,),
    "streams": ("image", "text"),
    "reductions": ("mean",),
    "batch_size": 16,
    "resolution": 32,
    "t5_length": 40,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def data():
    return probing.load_pairs("testbed", where="facet == 'quality'", limit=96)


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    return write(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def kept(folder, data, tmp_path_factory):
    place = tmp_path_factory.mktemp("reward")
    store = probing.extract(folder, data, output=place / "s.zarr", **READ)
    return store, train_reward(store, blocks=(store.num_blocks - 2, store.num_blocks - 1)).save(place / "reward")


def test_live_scores_equal_cached_ones(folder, kept, data):
    store, path = kept
    reward = LatentReward.load(path, model=folder, device="cpu")
    cached = reward.score_store(store).set_index("item_id")["reward"]
    items = data.items.iloc[:6]
    pictures = [data.open_image(item) for item in items["item_id"]]
    live = reward.score(items["prompt"].tolist(), pictures, keys=items["item_id"].tolist())
    np.testing.assert_allclose(live, cached[items["item_id"]], rtol=1e-3, atol=1e-4)
    latents = reward.opened.encode_images(pictures[:2])
    scores, gradients = reward.score_and_grad(latents, items["prompt"].tolist()[:2])
    step = 1e-3 * gradients / gradients.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    moved = reward.score_latents(latents + step, items["prompt"].tolist()[:2])
    rise = (step * gradients).flatten(1).sum(1).numpy()
    np.testing.assert_allclose(np.asarray(moved) - np.asarray(scores), rise, rtol=0.2, atol=2e-5)


@pytest.mark.slow
def test_adapted_backbones_are_kept(folder, kept, data, tmp_path):
    pytest.importorskip("peft")
    _, path = kept
    settings = AdaptSettings(adapter=AdapterSettings(rank=2), epochs=1, batch_size=16)
    adapted = adapt(LatentReward.load(path, model=folder, device="cpu"), data, settings)
    again = LatentReward.load(adapted.save(tmp_path / "adapted"), model=folder, device="cpu")
    items = data.items.iloc[:4]
    pictures = [data.open_image(item) for item in items["item_id"]]
    scores = [reward.score(items["prompt"].tolist(), pictures) for reward in (adapted, again)]
    np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-5)


def test_low_rank_products_are_added_in_every_block(folder):
    pytest.importorskip("peft")
    from probing.backbones import load_backbone, resolve

    backbone = load_backbone(
        resolve(str(folder)), device=torch.device("cpu"), compute_dtype=torch.float32, t5_length=40
    )
    backbone.transformer.requires_grad_(False)
    names = add_adapter(backbone.transformer, AdapterSettings(rank=2))
    with_adapter = {".".join(name.split(".")[:2]) for name in names}
    blocks = {
        f"{path}.{i}" for path in backbone.block_lists for i in range(len(backbone.transformer.get_submodule(path)))
    }
    assert with_adapter == blocks
