"""The cluster bootstrap against closed forms, one-by-one resampling, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from probing.statistics import bootstrap, cluster_bootstrap, paired_difference

CLUSTERS, PER_CLUSTER = 200, 3
GROUPS = np.repeat(np.arange(CLUSTERS), PER_CLUSTER)


def clustered(rng, datasets, probability=0.7, spread=0.15):
    """0/1 outcomes (pair, dataset) whose clusters share their success rate."""
    rates = np.clip(probability + rng.uniform(-spread, spread, (CLUSTERS, datasets)), 0, 1)
    return (rng.random((CLUSTERS, PER_CLUSTER, datasets)) < rates[:, None]).reshape(-1, datasets).astype(float)


def test_the_interval_is_that_of_resampling_one_by_one(monkeypatch):
    rng = np.random.default_rng(0)
    values = rng.normal(size=60)
    groups = rng.integers(0, 12, 60)
    values[7] = np.nan
    interval = cluster_bootstrap(values, groups, resamples=300, seed=5)
    drawn = np.random.default_rng(5).integers(0, 12, size=(300, 12))
    means = [np.nanmean(np.concatenate([values[groups == g] for g in row])) for row in drawn]
    assert interval.estimate == pytest.approx(np.nanmean(values))
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    monkeypatch.setattr(bootstrap, "_MULTIPLICITIES_AT_ONCE", 12 * 7)
    assert cluster_bootstrap(values, groups, resamples=300, seed=5) == pytest.approx(interval)


def test_single_pair_clusters_give_the_binomial_interval():
    values = np.repeat([1.0, 0.0], [600, 400])
    interval = cluster_bootstrap(values, np.arange(1000), resamples=20_000)
    low, high = stats.binom(1000, 0.6).ppf([0.025, 0.975]) / 1000
    assert interval.estimate == 0.6
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.0015)


def test_copies_within_a_cluster_tell_nothing_new():
    rng = np.random.default_rng(1)
    values = rng.random((50, 2))
    once = cluster_bootstrap(values, np.arange(50))
    copied = cluster_bootstrap(np.repeat(values, 9, axis=0), np.repeat(np.arange(50), 9))
    for a, b in zip(once, copied, strict=True):
        np.testing.assert_allclose(a, b)


def test_intervals_cover_at_their_level():
    values = clustered(np.random.default_rng(2), 3000)
    _, low, high = cluster_bootstrap(values, GROUPS, resamples=1000)
    covered = np.mean((low <= 0.7) & (high >= 0.7))
    assert 0.93 <= covered <= 0.97
    # Leaving the clusters out of account would not do, or this test could not fail.
    _, low, high = cluster_bootstrap(np.repeat(values[:, :300], 2, axis=0), np.arange(2 * len(values)), resamples=300)
    assert np.mean((low <= 0.7) & (high >= 0.7)) < 0.9


def test_a_null_difference_is_called_significant_at_its_level():
    rng = np.random.default_rng(3)
    common = clustered(rng, 3000)
    # Two probes that agree on most pairs and are equally good.
    a, b = (np.where(rng.random(common.shape) < 0.3, rng.random(common.shape) < 0.7, common) for _ in range(2))
    difference = paired_difference(a, b, GROUPS, resamples=1000)
    assert 0.03 <= np.mean(difference.p <= 0.05) <= 0.07
    assert 0.93 <= np.mean((difference.low <= 0) & (difference.high >= 0)) <= 0.97


def test_pairing_narrows_the_interval_of_agreeing_probes():
    rng = np.random.default_rng(4)
    a = clustered(rng, 1)[:, 0]
    b = np.where(rng.random(len(a)) < 0.05, 0.0, a)
    difference = paired_difference(a, b, GROUPS)
    single = cluster_bootstrap(a, GROUPS)
    assert difference.estimate == pytest.approx(a.mean() - b.mean())
    assert difference.high - difference.low < 0.6 * (single.high - single.low)
    assert difference.p < 0.01


def test_p_values_and_intervals_agree_and_p_is_never_zero():
    rng = np.random.default_rng(5)
    a, b = clustered(rng, 200, 0.72), clustered(rng, 200, 0.68)
    estimate, low, high, p = paired_difference(a, b, GROUPS, resamples=1999)
    assert (((low > 0) | (high < 0)) == (p <= 0.05)).mean() > 0.98
    assert (p > 0).all() and (p <= 1).all()
    _, _, _, p = paired_difference(np.ones(len(GROUPS)), np.zeros(len(GROUPS)), GROUPS, resamples=999)
    assert p == pytest.approx(2 / 1000)
    assert paired_difference(a[:, 0], a[:, 0], GROUPS).p == 1.0
    reverse = paired_difference(b, a, GROUPS, resamples=1999)
    np.testing.assert_allclose(reverse.estimate, -estimate)
    np.testing.assert_allclose(reverse.low, -high)
    np.testing.assert_allclose(reverse.p, p if np.ndim(p) else paired_difference(a, b, GROUPS, resamples=1999).p)


def test_nan_is_left_out_cell_by_cell():
    rng = np.random.default_rng(6)
    values = rng.random((90, 3))
    groups = np.repeat(np.arange(30), 3)
    holes = values.copy()
    holes[::4, 0] = np.nan
    holes[:, 2] = np.nan
    estimate, low, high = cluster_bootstrap(holes, groups)
    alone = cluster_bootstrap(holes[:, 0], groups)
    assert (estimate[0], low[0], high[0]) == pytest.approx(tuple(alone))
    assert estimate[0] == pytest.approx(np.nanmean(holes[:, 0]))
    assert np.isnan([estimate[2], low[2], high[2]]).all()
    assert np.isnan(paired_difference(holes, values, groups).p[2])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_pairs_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    values = rng.choice([0.0, 0.5, 1.0, np.nan], size=(40, 2), p=[0.3, 0.1, 0.5, 0.1])
    groups = rng.choice([f"p{i}" for i in range(9)], 40)
    order = rng.permutation(40)
    here = cluster_bootstrap(values, groups, resamples=50)
    there = cluster_bootstrap(values[order], groups[order], resamples=50)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: cluster_bootstrap([1.0, 0.0], ["p", "p"]), "at least 2"),
        (lambda: cluster_bootstrap([1.0, 0.0], ["p"]), "expected one a pair"),
        (lambda: cluster_bootstrap(np.zeros((2, 2, 2)), ["p", "q"]), "reshape"),
        (lambda: cluster_bootstrap([1.0, 0.0], ["p", "q"], resamples=0), "resamples"),
        (lambda: cluster_bootstrap([1.0, 0.0], ["p", "q"], confidence=95), "0.95 is usual"),
        (lambda: paired_difference([1.0, 0.0], [1.0], ["p", "q"]), "expected equal ones"),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
