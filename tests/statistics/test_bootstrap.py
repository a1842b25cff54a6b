"""The cluster bootstrap against closed forms, one-by-one resampling, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from probing.statistics import _bootstrap, cluster_bootstrap, paired_difference

CLUSTERS, PER_CLUSTER = 200, 3
GROUPS = np.repeat(np.arange(CLUSTERS), PER_CLUSTER)


def clustered(rng, datasets, probability=0.7, spread=0.15):
    """0/1 outcomes (pair, dataset) whose clusters share their success rate."""
    rates = np.clip(probability + rng.uniform(-spread, spread, (CLUSTERS, datasets)), 0, 1)
    return (rng.random((CLUSTERS, PER_CLUSTER, datasets)) < rates[:, None]).reshape(-1, datasets).astype(float)


def test_the_interval_equals_resampling_one_by_one(monkeypatch):
    rng = np.random.default_rng(0)
    values = rng.normal(size=60)
    groups = rng.integers(0, 12, 60)
    values[7] = np.nan
    interval = cluster_bootstrap(values, groups, resamples=20_000, seed=5)
    members = [values[groups == group] for group in range(12)]
    drawn = [np.concatenate([members[g] for g in rng.integers(12, size=12)]) for _ in range(20_000)]
    means = [np.nanmean(pairs) for pairs in drawn]
    assert interval.estimate == pytest.approx(np.nanmean(values))
    # Two quantiles of 20,000 draws each.
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.012)
    monkeypatch.setattr(_bootstrap, "_WEIGHTS_AT_ONCE", 12 * 7)
    in_parts = cluster_bootstrap(values, groups, resamples=20_000, seed=5)
    assert (in_parts.low, in_parts.high) == pytest.approx((interval.low, interval.high))


def test_equal_groups_are_drawn_like_distinct_groups():
    """Outcomes of 0 and 1 give few distinct groups; a little noise makes every group distinct."""
    rng = np.random.default_rng(7)
    values = (rng.random(600) < 0.7).astype(float)
    groups = rng.integers(0, 200, 600)
    few = cluster_bootstrap(values, groups, resamples=40_000)
    many = cluster_bootstrap(values + 1e-9 * rng.random(600), groups, resamples=40_000)
    assert (few.low, few.high) == pytest.approx((many.low, many.high), abs=0.0015)


def test_single_pair_clusters_give_the_binomial_interval():
    values = np.repeat([1.0, 0.0], [600, 400])
    interval = cluster_bootstrap(values, np.arange(1000), resamples=20_000)
    low, high = stats.binom(1000, 0.6).ppf([0.025, 0.975]) / 1000
    assert interval.estimate == 0.6
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.0015)


def test_copies_within_a_cluster_add_no_information():
    rng = np.random.default_rng(1)
    values = rng.random((50, 2))
    once = cluster_bootstrap(values, np.arange(50))
    copied = cluster_bootstrap(np.repeat(values, 9, axis=0), np.repeat(np.arange(50), 9))
    for end in ("estimate", "low", "high"):
        np.testing.assert_allclose(getattr(once, end), getattr(copied, end))


def test_intervals_cover_at_their_level():
    values = clustered(np.random.default_rng(2), 3000)
    interval = cluster_bootstrap(values, GROUPS, resamples=1000)
    covered = np.mean((interval.low <= 0.7) & (interval.high >= 0.7))
    assert 0.93 <= covered <= 0.97
    # Ignoring the clusters must fail, or this test could not fail.
    twice = cluster_bootstrap(np.repeat(values[:, :300], 2, axis=0), np.arange(2 * len(values)), resamples=300)
    assert np.mean((twice.low <= 0.7) & (twice.high >= 0.7)) < 0.9


def test_a_null_difference_is_called_significant_at_its_level():
    rng = np.random.default_rng(3)
    common = clustered(rng, 3000)
    # Two probes that agree on most pairs and are equally good.
    a, b = (np.where(rng.random(common.shape) < 0.3, rng.random(common.shape) < 0.7, common) for _ in range(2))
    difference = paired_difference(a, b, GROUPS, resamples=1000)
    assert 0.03 <= np.mean(difference.p_value <= 0.05) <= 0.07
    assert 0.93 <= np.mean((difference.low <= 0) & (difference.high >= 0)) <= 0.97


def test_pairing_narrows_the_interval_of_agreeing_probes():
    rng = np.random.default_rng(4)
    a = clustered(rng, 1)[:, 0]
    b = np.where(rng.random(len(a)) < 0.05, 0.0, a)
    difference = paired_difference(a, b, GROUPS)
    single = cluster_bootstrap(a, GROUPS)
    assert difference.estimate == pytest.approx(a.mean() - b.mean())
    assert difference.high - difference.low < 0.6 * (single.high - single.low)
    assert difference.p_value < 0.01


def test_p_values_and_intervals_agree_and_p_is_never_zero():
    rng = np.random.default_rng(5)
    a, b = clustered(rng, 200, 0.72), clustered(rng, 200, 0.68)
    forward = paired_difference(a, b, GROUPS, resamples=1999)
    assert (((forward.low > 0) | (forward.high < 0)) == (forward.p_value <= 0.05)).mean() > 0.98
    assert (forward.p_value > 0).all() and (forward.p_value <= 1).all()
    certain = paired_difference(np.ones(len(GROUPS)), np.zeros(len(GROUPS)), GROUPS, resamples=999)
    assert certain.p_value == pytest.approx(2 / 1000)
    assert paired_difference(a[:, 0], a[:, 0], GROUPS).p_value == 1.0
    backward = paired_difference(b, a, GROUPS, resamples=1999)
    np.testing.assert_allclose(backward.estimate, -forward.estimate)
    np.testing.assert_allclose(backward.low, -forward.high)
    np.testing.assert_allclose(backward.p_value, forward.p_value)


def test_nan_is_left_out_cell_by_cell():
    rng = np.random.default_rng(6)
    values = rng.random((90, 3))
    groups = np.repeat(np.arange(30), 3)
    holes = values.copy()
    holes[::4, 0] = np.nan
    together, alone = (cluster_bootstrap(v, groups) for v in (holes, holes[:, 0]))
    assert (together.low[0], together.high[0]) == pytest.approx((alone.low, alone.high))
    assert together.estimate[0] == pytest.approx(np.nanmean(holes[:, 0]))
    assert paired_difference(holes, values, groups).estimate[0] == pytest.approx(0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_pairs_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    values = rng.choice([0.0, 0.5, 1.0, np.nan], size=(40, 2), p=[0.3, 0.1, 0.5, 0.1])
    groups = rng.choice([f"p{i}" for i in range(9)], 40)
    order = rng.permutation(40)
    original = cluster_bootstrap(values, groups, resamples=50)
    permuted = cluster_bootstrap(values[order], groups[order], resamples=50)
    for end in ("estimate", "low", "high"):
        np.testing.assert_array_equal(getattr(original, end), getattr(permuted, end))


ONE, TWO, NAN = np.ones(1), np.array([1.0, 0.0]), np.full(2, np.nan)
SAME, DIFFERENT = np.array(["p", "p"]), np.array(["p", "q"])


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cluster_bootstrap(TWO, SAME), "at least 2 prompts, got 1"),
        (lambda: cluster_bootstrap(TWO, SAME[:1]), "got 1 groups for 2 pairs"),
        (lambda: cluster_bootstrap(NAN, DIFFERENT), "no untied pair"),
        (lambda: paired_difference(TWO, ONE, DIFFERENT), "same pairs twice"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
