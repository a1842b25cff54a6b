"""Reductions against NumPy, and padding that must not count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probing.errors import UserError
from probing.features.reductions import reduce_image, reduce_text
from probing.features.settings import check_reductions


@given(seed=st.integers(0, 1000), rows=st.sampled_from([4, 8]), columns=st.sampled_from([4, 12]))
def test_image_reductions_equal_numpy(seed, rows, columns):
    tokens = np.random.default_rng(seed).standard_normal((2, rows * columns, 3)).astype(np.float32)
    actual = reduce_image(torch.from_numpy(tokens), (rows, columns), ["mean", "std", "max", "grid4", "tokens"])
    grid = tokens.reshape(2, 4, rows // 4, 4, columns // 4, 3).mean(axis=(2, 4)).reshape(2, 16, 3)
    expected = {"mean": tokens.mean(1), "std": tokens.std(1), "max": tokens.max(1), "grid4": grid, "tokens": tokens}
    assert set(actual) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name].numpy(), value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_grid_reads_rows_before_columns():
    tokens = torch.zeros(1, 32, 1)
    tokens[0, 7] = 1.0  # first row of 8, last column: the fourth cell holds it
    cells = reduce_image(tokens, (4, 8), ["grid4"])["grid4"][0, :, 0]
    assert cells.nonzero().flatten().tolist() == [3]


@given(seed=st.integers(0, 1000), lengths=st.lists(st.integers(1, 7), min_size=1, max_size=4))
def test_text_reductions_leave_padding_out(seed, lengths):
    rng = np.random.default_rng(seed)
    tokens = rng.standard_normal((len(lengths), 10, 3)).astype(np.float32)
    clip, t5 = np.zeros((2, len(lengths), 10), dtype=bool)
    for row, length in enumerate(lengths):
        clip[row, :length] = True
        t5[row, 7 : 7 + 1 + length % 3] = True
    parts = {"clip": torch.from_numpy(clip), "t5": torch.from_numpy(t5)}
    actual = reduce_text(torch.from_numpy(tokens), parts, ["mean", "std", "max", "grid4"])
    assert set(actual) == {f"{name}_{part}" for name in ("mean", "std", "max") for part in ("clip", "t5")}
    for part, mask in (("clip", clip), ("t5", t5)):
        for row in range(len(lengths)):
            real = tokens[row, mask[row]]
            for name, value in (("mean", real.mean(0)), ("std", real.std(0)), ("max", real.max(0))):
                np.testing.assert_allclose(actual[f"{name}_{part}"][row].numpy(), value, rtol=1e-4, atol=1e-5)
    # The content of padding changes nothing.
    replaced = np.where((clip | t5)[..., None], tokens, 1e9).astype(np.float32)
    again = reduce_text(torch.from_numpy(replaced), parts, ["mean", "std", "max"])
    for name, value in again.items():
        assert torch.equal(value, actual[name]), name


def test_reductions_are_made_in_float32():
    tokens = torch.full((1, 4096, 1), 1.001, dtype=torch.bfloat16)
    assert reduce_image(tokens, (64, 64), ["mean"])["mean"].item() == pytest.approx(float(tokens[0, 0, 0]), rel=1e-6)


def test_unknown_and_misplaced_reductions():
    with pytest.raises(UserError, match="known are mean, std, max, grid4, tokens"):
        check_reductions(["median"], ["image"])
    with pytest.raises(UserError, match="add image"):
        check_reductions(["grid4"], ["text"])
    with pytest.raises(ValueError, match="16 tokens, got 15"):
        reduce_image(torch.zeros(1, 15, 2), (4, 4), ["mean"])
