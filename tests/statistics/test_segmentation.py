"""Segmentations against brute force, planted runs, and nulls without any."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probing.statistics import find_segments, stationary
from probing.statistics._segmentation import best_segmentations, segment_costs


def symmetric_noise(rng, shape, size):
    noise = rng.normal(size=shape) * size
    noise = (noise + np.swapaxes(noise, -1, -2)) / 2
    noise[..., range(shape[-1]), range(shape[-1])] = 0
    return noise


def planted(lengths, *, within=0.94, across=0.73, noise=0.05, groups=40, seed=0):
    label = np.repeat(range(len(lengths)), lengths)
    mean = np.where(label[:, None] == label, within, across)
    np.fill_diagonal(mean, 1.0)
    rng = np.random.default_rng(seed)
    return mean + symmetric_noise(rng, (groups, len(label), len(label)), noise)


def drift(speed, *, groups=30, noise=0.0, seed=0):
    """Similarity that decreases with the path length between two positions."""
    way = np.cumsum(speed)
    rng = np.random.default_rng(seed)
    mean = np.exp(-np.abs(way[:, None] - way) / 20)
    return mean + symmetric_noise(rng, (groups, len(way), len(way)), noise)


def brute_force(similarity, number, shortest):
    positions = len(similarity)
    best = (np.inf, None)
    for cuts in combinations(range(1, positions), number - 1):
        edges = (0, *cuts, positions)
        parts = [np.arange(a, b) for a, b in pairwise(edges)]
        if min(map(len, parts)) < shortest:
            continue
        cost = sum(np.trace(s := similarity[np.ix_(p, p)]) - s.sum() / len(p) for p in parts)
        if cost < best[0] - 1e-12:
            best = (cost, edges[:-1])
    return best


@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(1, 2))
def test_dynamic_programming_finds_the_best_of_all(seed, positions, shortest):
    features = np.random.default_rng(seed).normal(size=(positions, 3))
    similarity = features @ features.T
    numbers = positions // shortest
    costs, starts = best_segmentations(similarity, numbers, shortest)
    for number in range(1, numbers + 1):
        cost, expected = brute_force(similarity, number, shortest)
        assert costs[number - 1] == pytest.approx(cost, abs=1e-9)
        assert tuple(starts[number - 1]) == expected


def test_cost_is_the_scatter_about_the_mean():
    features = np.random.default_rng(0).normal(size=(6, 4))
    costs = segment_costs(features @ features.T)
    part = features[1:5]
    assert costs[1, 4] == pytest.approx(((part - part.mean(0)) ** 2).sum())
    assert costs[4, 1] == np.inf and costs[2, 2] == pytest.approx(0)


def test_a_batch_equals_single_matrices():
    values = planted([3, 4, 2], noise=0.3, groups=5)
    costs, starts = best_segmentations(values, 4)
    for i, one in enumerate(values):
        alone, alone_starts = best_segmentations(one, 4)
        np.testing.assert_allclose(costs[i], alone)
        assert all((starts[k][i] == alone_starts[k]).all() for k in range(4))


@pytest.mark.parametrize("lengths", [[6, 6, 6, 6], [3, 10, 8, 5, 12], [4, 4], [9, 29], [1, 7, 6, 1]])
@pytest.mark.parametrize("noise", [pytest.param(0.0, marks=pytest.mark.slow), 0.1])
def test_planted_runs_are_found_with_their_number(lengths, noise):
    result = find_segments(planted(lengths, noise=noise), resamples=200)
    assert result.number == len(lengths)
    assert result.starts[result.number - 1] == tuple(np.cumsum([0, *lengths[:-1]]).tolist())
    assert result.p_value <= 0.01 and result.gap.argmax() + 1 == len(lengths)
    assert min(result.segment_share[result.number - 1]) > 0.8 and min(result.start_share[result.number - 1]) > 0.8
    assert result.number_share[result.number - 1] > 0.8


def test_a_drift_at_constant_speed_is_one_run():
    result = find_segments(drift(np.ones(24)), resamples=100)
    assert result.number == 1 and result.p_value == 1.0 and result.starts[0] == (0,)
    np.testing.assert_allclose(result.gap, 0, atol=1e-9)


@pytest.mark.parametrize("positions", [8, pytest.param(24, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "unevenness",
    [pytest.param("uniform", marks=pytest.mark.slow), "lognormal", pytest.param("ramp", marks=pytest.mark.slow)],
)
def test_a_drift_of_uneven_speed_is_rarely_cut(positions, unevenness):
    """At most 5% of 40 data sets, so 6 or more have a chance of 1.4%."""
    cut = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        speed = {
            "uniform": rng.uniform(0.2, 1.8, positions),
            "lognormal": np.exp(0.7 * rng.standard_normal(positions)),
            "ramp": np.linspace(0.3, 3, positions),
        }[unevenness]
        cut += find_segments(drift(speed, noise=0.02, seed=seed), resamples=150, least_gap=0.0).number > 1
    assert cut <= 5


def test_a_drift_with_sudden_steps_is_cut_at_them():
    speed = np.ones(28)
    speed[[8, 16]] = 8
    result = find_segments(drift(speed, noise=0.02), resamples=100)
    assert result.starts[result.number - 1] == (0, 8, 16)


@pytest.mark.parametrize("kind", ["noise", pytest.param("drift", marks=pytest.mark.slow)])
def test_noise_without_runs_is_rarely_cut(kind):
    """By p-value alone, without the least gap: about 5% of 60 data sets, so 9 or more have a chance of 0.3%."""
    cut = 0
    for seed in range(60):
        if kind == "noise":
            values = planted([16], within=0.8, noise=0.1, groups=30, seed=seed)
        else:
            values = drift(np.ones(16), noise=0.05, seed=seed)
        result = find_segments(values, resamples=150, least_gap=0.0)
        cut += result.number > 1
        assert find_segments(values, resamples=50).number == 1
    assert cut <= 8


def test_scale_and_shift_of_similarity_change_nothing():
    values = planted([5, 3, 6], noise=0.1)
    original, scaled = find_segments(values, resamples=50), find_segments(0.2 * values + 0.8, resamples=50)
    assert original.starts == scaled.starts and original.number == scaled.number
    np.testing.assert_allclose(original.gap, scaled.gap, atol=1e-9)


def test_running_backwards_mirrors_the_runs():
    values = planted([3, 7, 5], noise=0.05)
    forward, backward = (find_segments(v, resamples=50) for v in (values, values[:, ::-1, ::-1]))
    assert forward.number == backward.number == 3
    assert {15 - s for s in forward.starts[2][1:]} == set(backward.starts[2][1:])


def test_blocks_that_are_all_the_same_are_one_run():
    result = find_segments(np.ones((3, 5, 5)), resamples=20)
    assert result.number == 1 and result.p_value == 1.0


def test_stationary_keeps_sums_and_has_constant_diagonals():
    values = planted([4, 3], noise=0.2, groups=2)
    even = stationary(values)
    np.testing.assert_allclose(even.sum((1, 2)), values.sum((1, 2)))
    for distance in range(7):
        assert np.ptp(np.diagonal(even[0], distance)) < 1e-12
    np.testing.assert_allclose(stationary(even), even)


def test_shortest_is_kept_and_limits_the_number():
    result = find_segments(planted([1, 6, 5], noise=0.02), shortest=3, resamples=20)
    assert len(result.starts) == 4
    for starts in result.starts:
        assert np.diff((*starts, 12)).min() >= 3


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("values", "changed", "message"),
    [
        (np.ones((1, 4, 4)), {}, "at least 2 square matrices"),
        (np.ones((3, 1, 1)), {}, "at least 2 positions"),
        (np.ones((3, 4, 5)), {}, "square"),
        (np.triu(np.ones((3, 4, 4))), {}, "not symmetric"),
        (np.full((3, 4, 4), np.nan), {}, "not finite"),
        (np.ones((3, 4, 4)), {"shortest": 5}, "1 … 4"),
    ],
)
def test_bad_input_is_refused(values, changed, message):
    with pytest.raises(ValueError, match=message):
        find_segments(values, **changed)
