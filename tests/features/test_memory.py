"""Memory that runs out halves the batch, and no item is lost or read twice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import probing
from probing.api.extraction import plan_extraction
from probing.backbones.families.sd3 import SD3Backbone
from probing.errors import UserError
from probing.features.memory import FittingBatches
from tests.fakes.tiny_sd3 import T5_LENGTH
from tests.features.test_extraction import make_data

SETTINGS = {
    "sigmas": (0.005, 0.6),
    "streams": ("image", "text"),
    "reductions": ("mean",),
    "resolution": 16,
    "batch_size": 6,
    "t5_length": T5_LENGTH,
    "device": "cpu",
    "keep_inputs": 0,
}


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 40))
def test_every_row_is_run_once_in_parts_that_fit(sizes, largest):
    fitting, start = FittingBatches(), 0
    for size in sizes:
        tried, done = [], []

        def work(rows, tried=tried):
            tried.append(rows.stop - rows.start)
            if tried[-1] > largest:
                raise torch.OutOfMemoryError("full")
            return list(range(rows.start, rows.stop))

        for rows, result in fitting.run(slice(start, start + size), work):
            assert result == list(range(rows.start, rows.stop))
            done += result
        assert done == list(range(start, start + size))
        start += size
    # What was learned is kept: too large a batch is tried as often as it must be halved.
    assert fitting.size is None or fitting.size <= largest


def full_above(limit, method):
    """Let a method of the transformer or an encoder run out of memory for more rows than fit."""

    def limited(self, *args, **kwargs):
        rows = max(len(value) for value in (*args, *kwargs.values()) if hasattr(value, "__len__"))
        if rows > limit:
            raise torch.OutOfMemoryError("full")
        return method(self, *args, **kwargs)

    return limited


def test_an_extraction_goes_on_in_smaller_batches(tiny_folder, tmp_path, monkeypatch):
    usual = probing.extract(tiny_folder, make_data(), output=tmp_path / "usual.zarr", **SETTINGS)
    from diffusers import SD3Transformer2DModel

    forward = SD3Transformer2DModel.forward

    def limited(self, **kwargs):
        if len(kwargs["hidden_states"]) > 2:
            raise torch.OutOfMemoryError("full")
        return forward(self, **kwargs)

    monkeypatch.setattr(SD3Transformer2DModel, "forward", limited)
    monkeypatch.setattr(SD3Backbone, "encode_images", full_above(3, SD3Backbone.encode_images))
    monkeypatch.setattr(SD3Backbone, "encode_prompts", full_above(1, SD3Backbone.encode_prompts))
    planned = plan_extraction(tiny_folder, make_data(), output=tmp_path / "s.zarr", **SETTINGS)
    store, computed, note = planned.run()
    assert computed == 12 and store.written.all()
    assert note == "batches of 6 did not fit into memory: read by 1"
    assert store.item_ids.tolist() == usual.item_ids.tolist()
    for stream, reduction in usual.arrays():
        for block in usual.blocks_of(stream):
            expected = usual.read(stream, reduction, 0.6, block)
            np.testing.assert_allclose(store.read(stream, reduction, 0.6, block), expected, rtol=1e-4, atol=1e-5)


def test_an_item_that_does_not_fit_is_a_sentence(tiny_folder, tmp_path, monkeypatch):
    from diffusers import SD3Transformer2DModel

    def full(self, **kwargs):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(SD3Transformer2DModel, "forward", full)
    with pytest.raises(UserError, match=r"ran out of memory with a single item of 16²; give a lower --resolution"):
        probing.extract(tiny_folder, make_data(), output=tmp_path / "s.zarr", **SETTINGS)
