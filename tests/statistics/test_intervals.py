"""Intervals over prompts against closed forms, one-by-one resampling, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from probing.statistics import (
    _bootstrap,
    crossed_interval,
    mean_interval,
    resampled_means,
    share_interval,
    sums_by_group,
)


def shares(rng, datasets, prompts, pairs, accuracy, dependence):
    """0/1 outcomes (pair, dataset); beta-distributed accuracies of prompts correlate the pairs of one."""
    chance = np.full((prompts, datasets), accuracy)
    if dependence:
        rest = (1 - dependence) / dependence
        chance = rng.beta(accuracy * rest, (1 - accuracy) * rest, size=chance.shape)
    outcomes = (rng.random((prompts, pairs, datasets)) < chance[:, None]).astype(float)
    return outcomes.reshape(-1, datasets), np.repeat(np.arange(prompts), pairs)


def coverage(interval, truth):
    # An end that equals the truth to rounding covers it.
    return float(np.mean((interval.low <= truth + 1e-12) & (interval.high >= truth - 1e-12)))


@pytest.mark.parametrize(("right", "n"), [(0, 20), (1, 20), (10, 20), (400, 400), (399, 400)])
def test_single_pairs_give_wilsons_interval(right, n):
    interval = share_interval((np.arange(n) < right).astype(float), np.arange(n))
    low, high = proportion_confint(right, n, method="wilson")
    # Student's quantile instead of the normal one, and n − 1 prompts: a little wider.
    assert interval.estimate == right / n
    assert interval.low <= low + 1e-9 and interval.high >= high - 1e-9
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.6 / n)


@pytest.mark.parametrize("prompts", [20, pytest.param(50, marks=pytest.mark.slow), 100])
@pytest.mark.parametrize(("pairs", "dependence"), [(1, 0.0), (10, 0.0), (10, 0.3)])
@pytest.mark.parametrize(
    "accuracy", [pytest.param(0.5, marks=pytest.mark.slow), 0.72, pytest.param(0.9, marks=pytest.mark.slow), 0.98]
)
def test_an_interval_of_accuracy_covers(prompts, pairs, dependence, accuracy):
    values, groups = shares(np.random.default_rng(0), 4000, prompts, pairs, accuracy, dependence)
    covered = coverage(share_interval(values, groups), accuracy)
    # Few prompts have few possible numbers of errors: at 0.98 and 50 prompts, 92% or 98% can be had, nothing between.
    most = 0.99 if accuracy == 0.98 and prompts < 100 else 0.975
    assert 0.93 - 0.012 <= covered <= most + 0.012  # three standard errors of 4,000 data sets


def test_ignoring_prompts_does_not_cover():
    values, groups = shares(np.random.default_rng(0), 2000, 50, 10, 0.72, 0.3)
    assert coverage(share_interval(values, np.arange(len(groups))), 0.72) < 0.85


def test_copies_within_a_prompt_add_no_information():
    values = (np.random.default_rng(1).random((80, 3)) < 0.8).astype(float)
    once = share_interval(values, np.arange(80))
    copied = share_interval(np.repeat(values, 9, axis=0), np.repeat(np.arange(80), 9))
    for end in ("estimate", "low", "high"):
        np.testing.assert_allclose(getattr(once, end), getattr(copied, end), atol=5e-3)


def test_an_accuracy_of_one_has_an_interval_with_a_width():
    few, many = (share_interval(np.ones(n), np.arange(n)) for n in (2, 200))
    assert few.low < 0.2 and 0.97 < many.low < 1.0 and many.high == 1.0
    ten = share_interval(np.ones(200), np.repeat(np.arange(20), 10))
    assert ten.low == pytest.approx(share_interval(np.ones(20), np.arange(20)).low)


def test_a_mean_covers_and_is_students_for_single_values():
    rng = np.random.default_rng(2)
    values = rng.normal(size=15)
    interval = mean_interval(values, rng.permutation(15))
    expected = stats.t.interval(0.95, 14, loc=values.mean(), scale=stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx(expected)
    many = rng.gumbel(size=(20, 1, 3000)) + rng.gumbel(size=(20, 6, 3000))
    covered = coverage(mean_interval(many.reshape(120, -1), np.repeat(np.arange(20), 6)), 2 * np.euler_gamma)
    assert 0.92 <= covered <= 0.975


def test_a_mean_over_prompts_and_draws_covers():
    rng = np.random.default_rng(3)
    covered, over_prompts_only = [], []
    groups = np.repeat(np.arange(30), 4)
    for _ in range(1000):
        of_prompt, of_draw = rng.normal(size=(30, 1)), rng.normal(size=20)
        values = of_prompt[groups] + of_draw + 3 * rng.normal(size=(120, 20))
        interval = crossed_interval(values, groups)
        covered.append(interval.low <= 0 <= interval.high)
        single = mean_interval(values.mean(axis=1), groups)
        over_prompts_only.append(single.low <= 0 <= single.high)
    assert 0.93 <= np.mean(covered) <= 0.98
    assert np.mean(over_prompts_only) < 0.9


def test_resampled_means_are_those_of_resampling_one_by_one(monkeypatch):
    rng = np.random.default_rng(0)
    values = rng.normal(size=60)
    groups = rng.integers(0, 12, 60)
    values[7] = np.nan
    by_group, _ = sums_by_group(values, groups)
    drawn = resampled_means(by_group, 20_000, 5)[:, 0]
    members = [values[groups == group] for group in range(12)]
    one_by_one = [np.nanmean(np.concatenate([members[g] for g in rng.integers(12, size=12)])) for _ in range(20_000)]
    # Two quantiles of 20,000 draws each.
    levels = [0.025, 0.5, 0.975]
    np.testing.assert_allclose(np.quantile(drawn, levels), np.quantile(one_by_one, levels), atol=0.012)
    monkeypatch.setattr(_bootstrap, "_WEIGHTS_AT_ONCE", 12 * 7)
    np.testing.assert_allclose(np.quantile(resampled_means(by_group, 20_000, 5), levels), np.quantile(drawn, levels))


def test_nan_is_left_out_column_by_column():
    rng = np.random.default_rng(6)
    values = rng.random((90, 3))
    groups = np.repeat(np.arange(30), 3)
    holes = values.copy()
    holes[::4, 0] = np.nan
    for method in (share_interval, mean_interval):
        together, alone = (method(v, groups) for v in (holes, holes[:, 0]))
        assert (together.low[0], together.high[0]) == pytest.approx((alone.low, alone.high))
        assert together.estimate[0] == pytest.approx(np.nanmean(holes[:, 0]))
    # A prompt with nothing but NaN does not count.
    holes[:3] = np.nan
    assert share_interval(holes[:, 1], groups).low == pytest.approx(share_interval(holes[3:, 1], groups[3:]).low)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_pairs_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    values = rng.choice([0.0, 0.5, 1.0, np.nan], size=(40, 2), p=[0.3, 0.1, 0.5, 0.1])
    groups = rng.choice([f"p{i}" for i in range(9)], 40)
    order = rng.permutation(40)
    for method in (share_interval, mean_interval):
        original, permuted = method(values, groups), method(values[order], groups[order])
        for end in ("estimate", "low", "high"):
            np.testing.assert_allclose(getattr(original, end), getattr(permuted, end), atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=30), st.integers(1, 4))
def test_an_interval_of_accuracy_holds_its_estimate_and_mirrors(values, size):
    values, groups = np.array(values), np.arange(len(values)) // size
    if len(np.unique(groups)) < 2:
        return
    interval, mirrored = share_interval(values, groups), share_interval(1 - values, groups)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1
    assert interval.high - interval.low > 0.01
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - interval.high, 1 - interval.low))


ONE, TWO, NAN = np.ones(1), np.array([1.0, 0.0]), np.full(2, np.nan)
SAME, DIFFERENT = np.array(["p", "p"]), np.array(["p", "q"])


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: share_interval(TWO, SAME), "at least 2 prompts, got 1"),
        (lambda: mean_interval(TWO, SAME[:1]), "got 1 groups for 2 pairs"),
        (lambda: mean_interval(NAN, DIFFERENT), "no untied pair"),
        (lambda: share_interval(2 * TWO, DIFFERENT), r"lie in \[0, 1\]"),
        (lambda: crossed_interval(TWO[:, None], DIFFERENT), "at least 2 of them, got 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
