"""Logistic fits of features on disk: the same optimum as in memory, and the same errors."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probing.probes import DiskRows, LogisticProbe, relabelled_margins
from probing.probes import _disk as disk
from probing.probes._base import log_loss
from probing.probes._disk import DiskMatrix


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
    np.testing.assert_array_equal(matrix.columns(chosen)[:], array[:, chosen])
    np.testing.assert_array_equal(matrix.columns([columns - 1])[:], array[:, -1:])


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
