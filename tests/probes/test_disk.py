"""Logistic fits of features on disk: the same optimum as in memory, and the same errors."""

from __future__ import annotations

import errno
import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probing.errors import UserError
from probing.probes import DiskRows, LogisticProbe, relabelled_margins
from probing.probes import _disk as disk
from probing.probes._base import log_loss
from probing.probes._disk import DiskMatrix
from probing.probes._solver import Design, LazyWeights, solve
from probing.probes._solver._device_rows import DeviceRows


def problem(pairs, width, seed=0, shape=()):
    """Items whose pairs share prompts in threes, and choices that depend on a direction."""
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(2 * pairs, *shape, width)).astype(np.float32) * rng.uniform(0.1, 10, width).astype(
        np.float32
    )
    items[..., -1] = 3.0
    rows = rng.permutation(2 * pairs).reshape(pairs, 2)
    flat = items.reshape(len(items), -1).astype(np.float64)
    differences = flat[rows[:, 0]] - flat[rows[:, 1]]
    chance = 1 / (1 + np.exp(-differences @ rng.normal(size=flat.shape[1]) / differences.std() / 4))
    return items, rows, (rng.random(pairs) < chance).astype(float), np.arange(pairs) // 3, differences


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(disk, "_BLOCK_BYTES", 4000)


def objective(probe, differences, y, weights):
    scaled = differences / probe.scale_
    b = probe.coef_ * probe.scale_
    return weights @ log_loss((scaled @ b)[:, None], y[:, None])[:, 0] + probe.alpha_ / 2 * (b**2).sum()


@pytest.mark.parametrize("scaling", ["standard", "raw", "mask-massive"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_optimum_is_that_of_a_fit_in_memory(scaling, weighted, tmp_path):
    items, rows, y, groups, differences = problem(400, 12, shape=(2,))
    weights = np.random.default_rng(1).uniform(0.5, 2, len(y)) if weighted else None
    whole = LogisticProbe(scaling=scaling).fit_pairs(items, rows, y, groups, weights)
    kept = DiskRows.write([items[:100], items[100:101], items[101:]], tmp_path)
    streamed = LogisticProbe(scaling=scaling).fit_pairs(kept, rows, y, groups, weights)
    assert (streamed.alpha_, streamed.scaling_) == (whole.alpha_, whole.scaling_)
    np.testing.assert_allclose(streamed.cv_scores_, whole.cv_scores_, rtol=1e-6)
    np.testing.assert_allclose(streamed.cv_margins_, whole.cv_margins_, rtol=1e-4, atol=1e-5)
    used = np.full(len(y), 1 / len(y)) if weights is None else weights / weights.sum()
    one, other = (objective(probe, differences, y, used) for probe in (whole, streamed))
    assert abs(one - other) <= 1e-6 * one
    np.testing.assert_allclose(streamed.pair_margins(kept, rows), whole.pair_margins(items, rows), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(streamed.rewards(kept), whole.rewards(items), rtol=1e-4, atol=1e-5)
    assert list(tmp_path.iterdir()) == []


def test_refits_to_other_labels_are_those_in_memory():
    items, rows, y, groups, _ = problem(300, 10)
    probe = LogisticProbe().fit_pairs(items, rows, y, groups)
    labels = np.random.default_rng(2).uniform(size=(len(y), 4)).round()
    whole = relabelled_margins(probe, items, rows, labels, rows[:50], groups)
    streamed = relabelled_margins(probe, DiskRows.write([items]), rows, labels, rows[:50], groups)
    np.testing.assert_allclose(streamed, whole, rtol=1e-3, atol=1e-4)


def test_more_channels_than_pairs_are_fitted_in_memory():
    items, rows, y, groups, _ = problem(40, 60)
    whole = LogisticProbe().fit_pairs(items, rows, y, groups)
    streamed = LogisticProbe().fit_pairs(DiskRows.write([items]), rows, y, groups)
    np.testing.assert_allclose(streamed.coef_, whole.coef_, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("scaling", ["auto", "whiten"])
def test_scalings_that_rotate_are_refused(scaling):
    items, rows, y, groups, _ = problem(60, 4)
    with pytest.raises(ValueError, match="do not fit into memory"):
        LogisticProbe(scaling=scaling).fit_pairs(DiskRows.write([items]), rows, y, groups)


@given(sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any), repeats=st.integers(1, 3), data=st.data())
def test_rows_on_disk_are_those_of_an_array(sizes, repeats, data):
    array = np.random.default_rng(0).normal(size=(sum(sizes), 2, 3)).astype(np.float32)
    kept = DiskRows.write(np.split(array, np.cumsum(sizes)[:-1]))
    whole = np.concatenate([array] * repeats)
    again = kept.repeated(repeats)
    assert again.shape == whole.shape and len(again) == len(whole)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    np.testing.assert_array_equal(again[start:stop], whole[start:stop])
    np.testing.assert_array_equal(np.concatenate([again[rows] for rows in again.blocks()]), whole)
    rows = np.array(data.draw(st.lists(st.integers(0, len(array) - 1), max_size=8)), dtype=int)
    np.testing.assert_array_equal(kept.take(rows), array[rows])
    scale = np.array([1.0, 2.0, np.inf, 1.0, 4.0, 8.0])
    np.testing.assert_allclose(
        kept.flat().divided(scale).as_type(np.float64)[:], array.reshape(len(array), -1) / scale, rtol=1e-12
    )


@given(rows=st.integers(1, 40), columns=st.integers(1, 5), data=st.data())
def test_a_matrix_on_disk_is_an_array(rows, columns, data):
    array = np.zeros((rows, columns), np.float32)
    matrix = DiskMatrix(array.shape, np.float32)
    for seed in range(data.draw(st.integers(0, 4))):
        start = data.draw(st.integers(0, rows))
        part = slice(start, data.draw(st.integers(start, rows)))
        values = np.random.default_rng(seed).normal(size=array[part].shape)
        array[part] += values
        matrix[part] += values
    np.testing.assert_array_equal(matrix[:], array)
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=columns, max_size=columns)))
    np.testing.assert_array_equal(matrix.select(chosen)[:], array[:, chosen])
    np.testing.assert_array_equal(matrix.select(np.array([columns - 1]))[:], array[:, -1:])
    assert matrix[rows:0].shape == (0, columns)
    with pytest.raises(AssertionError, match="in order"):
        matrix[::2]


@pytest.mark.slow
def test_memory_hardly_grows_with_pairs(monkeypatch):
    """A pair takes a few numbers in memory, not one for each fold and strength (440 bytes in double precision)."""
    monkeypatch.setattr(disk, "_BLOCK_BYTES", 2**15)
    peaks = {}
    for pairs in (4_000, 24_000):
        items, rows, y, groups, _ = problem(pairs, 4)
        kept = DiskRows.write([items])
        tracemalloc.start()
        LogisticProbe().fit_pairs(kept, rows, y, groups)
        peaks[pairs] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (peaks[24_000] - peaks[4_000]) / 20_000 < 100


def test_an_accelerator_reaches_the_same_optimum():
    """Products on a device, gradients from the disk; torch's CPU stands for the device."""
    _, _, y, _, differences = problem(300, 6)
    weights = LazyWeights(lambda rows: np.full((rows.stop - rows.start, 2), 1 / len(y)), len(y), np.arange(2))
    kept = DiskRows.write([differences])
    whole, streamed = Design.prepare(differences), Design.prepare(kept)
    beside = streamed._replace(single=DeviceRows.to_device(kept, "cpu"))
    found = [solve(design, y, weights, np.array([0.1, 0.01]), tolerance=1e-12) for design in (whole, streamed, beside)]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-5)


@pytest.mark.parametrize("write", ["rows", "matrix"])
def test_a_full_disk_is_named(write, tmp_path, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    matrix = DiskMatrix((3, 2), np.float32, tmp_path)
    monkeypatch.setattr(os, "pwrite", full)
    writes = {
        "rows": lambda: DiskRows.write([np.ones((3, 2))], tmp_path),
        "matrix": lambda: matrix.__setitem__(slice(None), np.ones((3, 2))),
    }
    with pytest.raises(UserError, match=f"disk of {tmp_path} is full"):
        writes[write]()


def test_what_cannot_be_fitted_is_one_sentence():
    items, rows, y, groups, _ = problem(60, 4)
    kept = DiskRows.write([items])
    with pytest.raises(ValueError, match="Got 0 pairs, 0 labels and 0 groups, expected the same number"):
        LogisticProbe().fit_pairs(kept, rows[:0], y[:0])
    with pytest.raises(ValueError, match="Got 60 pairs, 60 labels and 59 groups"):
        LogisticProbe().fit_pairs(kept, rows, y, groups[:-1])
    with pytest.raises(ValueError, match="above 0 in one fold alone"):
        LogisticProbe().fit_pairs(kept, rows, y, groups, np.where(groups == 0, 1.0, 0.0))
