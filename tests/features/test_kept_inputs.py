"""Latents and prompts that are kept: another extraction encodes nothing, and its features are the same bytes."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
from PIL import Image

import probing
from probing.backbones import Backbone, loading
from probing.errors import UserError
from probing.features import in_turn
from probing.features.kept_inputs import KeptInputs
from probing.features.settings import ENCODED
from tests.fakes.tiny_sd3 import T5_LENGTH
from tests.features.test_extraction import arrays_of
from tests.features.user_pairs import make_data

SETTINGS = {"resolution": 16, "batch_size": 4, "t5_length": T5_LENGTH, "streams": ("image", "text"), "device": "cpu"}


@pytest.fixture
def pairs(tmp_path):
    (tmp_path / "data").mkdir()
    return make_data(tmp_path / "data")


@pytest.fixture
def no_encoder(monkeypatch):
    """Fail where a picture is opened, or where anything is encoded."""

    def fail(*_, **__):
        pytest.fail("an input was encoded again")

    def forbid():
        monkeypatch.setattr(Image, "open", fail)
        classes = [Backbone]
        for cls in classes:
            classes += cls.__subclasses__()
        for cls in classes[1:]:
            monkeypatch.setattr(cls, "encode_prompts", fail)
            monkeypatch.setattr(cls, "encode_images", fail)

    return forbid


def extract(folder, pairs, output, **settings):
    return probing.extract(folder, pairs, output=output, **{**SETTINGS, **settings})


@pytest.mark.parametrize(
    "changed", [{"random_init": True}, pytest.param({"seed": 1}, marks=pytest.mark.slow), {"sigmas": (0.4,)}], ids=str
)
def test_other_weights_seeds_and_noise_levels_encode_nothing(tiny_folder, pairs, tmp_path, no_encoder, changed):
    expected = extract(tiny_folder, pairs, tmp_path / "elsewhere" / "x.zarr", keep_inputs=0, **changed)
    extract(tiny_folder, pairs, tmp_path / "first.zarr")
    no_encoder()
    actual = extract(tiny_folder, pairs, tmp_path / "x.zarr", **changed)
    assert arrays_of(actual) == arrays_of(expected)
    assert not (tmp_path / "elsewhere" / ENCODED).exists()


def test_neither_vae_nor_text_encoders_are_loaded(tiny_folder, pairs, tmp_path, monkeypatch):
    extract(tiny_folder, pairs, tmp_path / "first.zarr")
    loaded, load_part = [], loading._load_part
    monkeypatch.setattr(loading, "_load_part", lambda part, *rest: loaded.append(part.kind) or load_part(part, *rest))
    extract(tiny_folder, pairs, tmp_path / "second.zarr", random_init=True)
    assert set(loaded) == {"scheduler", "tokenizer"}


def test_a_large_model_is_loaded_part_by_part(tiny_folder, pairs, tmp_path, monkeypatch):
    """Text encoders, then the VAE, then the transformer, never two together; and the same bytes."""
    expected = extract(tiny_folder, pairs, tmp_path / "elsewhere" / "x.zarr", keep_inputs=0)
    together, load_for = [], probing.features.loading.load_for

    def noted(spec, settings, *, device, stages):
        together.append(sorted(stages))
        return load_for(spec, settings, device=device, stages=stages)

    monkeypatch.setattr(probing.features.loading, "load_for", noted)
    monkeypatch.setattr(in_turn, "load_for", noted)
    monkeypatch.setattr(in_turn, "LARGE", 0.0)
    actual = extract(tiny_folder, pairs, tmp_path / "x.zarr")
    assert together == [["text_encoders"], ["vae"], ["transformer"]]
    assert arrays_of(actual) == arrays_of(expected)


def test_similarity_reads_what_an_extraction_encoded(tiny_folder, pairs, tmp_path, no_encoder):
    preparation = {name: SETTINGS[name] for name in ("resolution", "batch_size", "t5_length")}
    settings = {"sigmas": (0.4,), "random_init": True, "trajectory_steps": (), **preparation}
    expected = probing.similarity(tiny_folder, pairs, **settings)
    extract(tiny_folder, pairs, tmp_path / "first.zarr")
    no_encoder()
    actual = probing.similarity(tiny_folder, pairs, output=tmp_path / "results", **settings)
    pd.testing.assert_frame_equal(actual.table, expected.table)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"resolution": 32}, marks=pytest.mark.slow),
        {"resize": "pad", "background": "black"},
        {"use_t5": False},
    ],
    ids=str,
)
def test_another_preparation_is_encoded_anew(tiny_folder, pairs, tmp_path, changed):
    extract(tiny_folder, pairs, tmp_path / "first.zarr")
    actual = extract(tiny_folder, pairs, tmp_path / "x.zarr", **changed)
    expected = extract(tiny_folder, pairs, tmp_path / "elsewhere" / "x.zarr", keep_inputs=0, **changed)
    assert arrays_of(actual) == arrays_of(expected)


def test_a_changed_picture_is_encoded_anew(tiny_folder, pairs, tmp_path):
    extract(tiny_folder, pairs, tmp_path / "first.zarr")
    picture = sorted((tmp_path / "data").rglob("*.png"))[0]
    Image.new("RGB", (16, 16), "red").save(picture)
    actual = extract(tiny_folder, pairs, tmp_path / "x.zarr")
    expected = extract(tiny_folder, pairs, tmp_path / "elsewhere" / "x.zarr", keep_inputs=0)
    assert arrays_of(actual) == arrays_of(expected)


@pytest.mark.parametrize(
    "how", ["damaged", *(pytest.param(how, marks=pytest.mark.slow) for how in ("deleted", "a file"))]
)
def test_a_lost_folder_costs_only_time(tiny_folder, pairs, tmp_path, how):
    extract(tiny_folder, pairs, tmp_path / "first.zarr")
    folder = tmp_path / ENCODED
    if how == "damaged":
        for path in folder.rglob("*"):
            if path.is_file():
                path.write_bytes(b"damaged" * 400)
    else:
        shutil.rmtree(folder)
    if how == "a file":
        folder.write_text("in the way")
    actual = extract(tiny_folder, pairs, tmp_path / "x.zarr", seed=1)
    expected = extract(tiny_folder, pairs, tmp_path / "elsewhere" / "x.zarr", keep_inputs=0, seed=1)
    assert arrays_of(actual) == arrays_of(expected)


def test_a_size_below_zero_is_refused(tiny_folder, pairs, tmp_path):
    with pytest.raises(UserError, match="--keep-inputs is a number of GiB"):
        extract(tiny_folder, pairs, tmp_path / "x.zarr", keep_inputs=-1)


def test_nothing_is_kept_on_a_disk_that_the_store_fills(tiny_folder, pairs, tmp_path, monkeypatch):
    plan = probing.plan_extraction(tiny_folder, pairs, output=tmp_path / "x.zarr", **SETTINGS)
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, plan.plan.disk_bytes + 2**20))
    store, computed, _ = plan.run()
    assert computed == len(store.item_ids) and not (tmp_path / ENCODED).exists()


@pytest.mark.parametrize("what", ["pictures", "prompts"])
@pytest.mark.slow
def test_inputs_that_go_while_they_are_needed_are_a_sentence(tiny_folder, pairs, tmp_path, monkeypatch, what):
    extract(tiny_folder, pairs, tmp_path / "first.zarr")
    monkeypatch.setattr(KeptInputs, f"read_{what}", lambda *_: None)
    with pytest.raises(UserError, match="has been removed since this command began; give the same command again"):
        extract(tiny_folder, pairs, tmp_path / "second.zarr", seed=1)
    monkeypatch.undo()
    assert extract(tiny_folder, pairs, tmp_path / "second.zarr", seed=1).complete
