"""Paired differences against enumeration, McNemar's exact test, and simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from probing.statistics import equivalent, mean_change, paired_difference, sign_flip_p_value


def two_probes(rng, datasets, prompts, pairs, accuracies, agreement=0.8, dependence=0.3):
    """0/1 outcomes of two probes (pair, dataset), correlated between the probes and within prompts."""

    def noise(size, shared):
        return np.sqrt(agreement) * shared + np.sqrt(1 - agreement) * rng.standard_normal(size)

    shared_prompt = rng.standard_normal((prompts, 1, datasets))
    shared_pair = rng.standard_normal((prompts, pairs, datasets))
    made = []
    for accuracy in accuracies:
        value = np.sqrt(dependence) * noise(shared_prompt.shape, shared_prompt)
        value = value + np.sqrt(1 - dependence) * noise(shared_pair.shape, shared_pair)
        made.append((value < stats.norm.ppf(accuracy)).astype(float).reshape(-1, datasets))
    return *made, np.repeat(np.arange(prompts), pairs)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=2, max_size=11), st.sampled_from([1, 2, 6, 40]))
def test_sign_flips_are_those_of_enumeration(sums, denominator):
    sums = np.array(sums) / denominator
    flips = np.array([abs(np.dot(signs, sums)) for signs in itertools.product((1, -1), repeat=len(sums))])
    assert sign_flip_p_value(sums) == pytest.approx((flips >= abs(sums.sum()) - 1e-9).mean(), abs=1e-9)


def test_sums_without_a_common_step_are_close_to_enumeration():
    rng = np.random.default_rng(0)
    for shift in (0.1, 0.3, 0.6):
        sums = rng.normal(shift, 1, size=15)
        flips = np.array([abs(np.dot(signs, sums)) for signs in itertools.product((1, -1), repeat=15)])
        exact = (flips >= abs(sums.sum()) - 1e-12).mean()
        assert sign_flip_p_value(sums) == pytest.approx(exact, rel=0.08)


@pytest.mark.parametrize(("more", "less"), [(6, 0), (9, 4), (40, 10), (300, 210), (1200, 900)])
def test_one_pair_a_prompt_is_mcnemars_exact_test(more, less):
    first = np.repeat([1.0, 0.0, 1.0], [more, less, 50])
    second = np.repeat([0.0, 1.0, 1.0], [more, less, 50])
    expected = mcnemar([[50, more], [less, 0]], exact=True).pvalue
    result = paired_difference(first, second, np.arange(len(first)))
    # Below 1e-10 the saddlepoint takes over.
    assert result.p_value == pytest.approx(expected, rel=1e-4 if expected > 1e-10 else 0.2)
    assert result.smallest_p_value == pytest.approx(2 * 0.5 ** (more + less), rel=1e-6)


def test_p_values_can_be_as_small_as_a_large_family_needs():
    first, second = np.ones(60), np.repeat([0.0, 1.0], [40, 20])
    assert paired_difference(first, second, np.arange(60)).p_value < 1e-11


SLOW = pytest.mark.slow
SIZES = [(20, 1), pytest.param(20, 10, marks=SLOW), pytest.param(100, 1, marks=SLOW), (100, 10)]
"""Prompts, and pairs of each; the fast tests take the extremes."""


@pytest.mark.parametrize(("prompts", "pairs"), SIZES)
@pytest.mark.parametrize("accuracy", [pytest.param(0.5, marks=SLOW), 0.72, pytest.param(0.9, marks=SLOW), 0.98])
def test_a_null_difference_is_called_significant_in_five_percent_at_most(prompts, pairs, accuracy):
    a, b, groups = two_probes(np.random.default_rng(3), 2000, prompts, pairs, (accuracy, accuracy))
    result = paired_difference(a, b, groups)
    rejected = np.mean(result.p_value <= 0.05)
    assert rejected <= 0.05 + 0.015  # three standard errors of 2,000 data sets
    if pairs == 10 and prompts == 100 and accuracy < 0.95:
        assert rejected >= 0.03
    assert np.mean((result.low <= 0) & (result.high >= 0)) >= 0.93


@pytest.mark.parametrize(("prompts", "pairs"), [*SIZES[:3], pytest.param(*SIZES[3], marks=SLOW)])
@pytest.mark.parametrize(
    "accuracies", [pytest.param((0.6, 0.5), marks=SLOW), pytest.param((0.8, 0.72), marks=SLOW), (0.98, 0.9)]
)
def test_an_interval_of_a_difference_covers(prompts, pairs, accuracies):
    a, b, groups = two_probes(np.random.default_rng(4), 3000, prompts, pairs, accuracies)
    result = paired_difference(a, b, groups)
    truth = accuracies[0] - accuracies[1]
    covered = np.mean((result.low <= truth + 1e-12) & (result.high >= truth - 1e-12))
    # With a handful of prompts that differ, few differences are possible, and coverage is more than needed.
    few = np.mean((a != b).reshape(prompts, pairs, -1).any(axis=1).sum(axis=0)) < 8
    assert 0.93 - 0.014 <= covered <= (1.0 if few else 0.985)


def test_no_difference_at_all_has_an_interval_with_a_width():
    result = paired_difference(np.ones(30), np.ones(30), np.arange(30))
    assert result.estimate == 0 and result.low < -0.03 and result.high > 0.03
    assert result.p_value == 1.0 and result.smallest_p_value == 1.0


def test_swapping_the_sides_mirrors():
    a, b, groups = two_probes(np.random.default_rng(5), 50, 40, 3, (0.75, 0.68))
    forward, backward = paired_difference(a, b, groups), paired_difference(b, a, groups)
    np.testing.assert_allclose(backward.estimate, -forward.estimate)
    np.testing.assert_allclose(backward.low, -forward.high)
    np.testing.assert_allclose(backward.p_value, forward.p_value)


def test_p_values_and_intervals_mostly_agree():
    a, b, groups = two_probes(np.random.default_rng(6), 400, 300, 2, (0.72, 0.68))
    result = paired_difference(a, b, groups)
    excludes = (result.low > 0) | (result.high < 0)
    assert (excludes == (result.p_value <= 0.05)).mean() > 0.95


def test_equivalence_is_found_at_its_level_on_the_border_and_often_inside():
    rng = np.random.default_rng(7)
    a, b, groups = two_probes(rng, 2000, 400, 3, (0.73, 0.68))
    assert 0.025 <= np.mean(equivalent(a, b, groups, margin=0.05)) <= 0.075
    a, b, groups = two_probes(rng, 300, 400, 3, (0.7, 0.7))
    assert np.mean(equivalent(a, b, groups, margin=0.05)) > 0.7


def test_few_pairs_are_not_equivalent_because_none_differs():
    assert not equivalent(np.ones(4), np.ones(4), np.arange(4), margin=0.01)
    assert equivalent(np.ones(2000), np.ones(2000), np.arange(2000), margin=0.01)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_difference(np.ones(2), np.ones(1), np.arange(2)), "same pairs twice"),
        (lambda: equivalent(np.ones(4), np.ones(4), np.arange(4), margin=0), "above 0"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@given(scale=st.floats(1e-6, 1e6))
def test_a_change_of_scores_has_no_unit(scale):
    rng = np.random.default_rng(0)
    first, second, groups = rng.normal(size=40), rng.normal(size=40), np.repeat(np.arange(20), 2)
    one, other = mean_change(first, second, groups), mean_change(scale * first, scale * second, groups)
    np.testing.assert_allclose(
        [other.estimate, other.low, other.high], scale * np.array([one.estimate, one.low, one.high])
    )
    assert other.p_value == pytest.approx(one.p_value)


def test_a_change_of_single_scores_is_students():
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.3, size=30), rng.normal(size=30)
    found = mean_change(first, second, np.arange(30))
    expected = stats.ttest_rel(first, second).confidence_interval()
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high])
    assert found.p_value == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=0.3)
