"""DeLong, power and the set of best candidates, against oracles and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from probing.statistics import auroc, best_candidates, paired_difference, prompts_needed, variance_of_difference

PER_PROMPT = 3


def two_probes(rng, prompts, delta=0.0, agreement=0.7):
    """0/1 outcomes of two probes on the same pairs, three a prompt; the first is better by delta."""
    difficulty = np.repeat(rng.beta(7, 3, prompts), PER_PROMPT)
    common = rng.random(len(difficulty)) < difficulty
    alone = [rng.random(len(difficulty)) < difficulty for _ in range(2)]
    same = rng.random(len(difficulty)) < agreement
    a, b = (np.where(same, common, single).astype(float) for single in alone)
    # A share of the wrong answers (30%) becomes right, so accuracy increases by delta.
    a = np.where((a == 0) & (rng.random(len(a)) < delta / 0.3), 1.0, a)
    return a, b, np.repeat(np.arange(prompts), PER_PROMPT)


def brute_force_delong(scores, labels):
    """Structural components by comparing every positive with every negative."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    above = np.sign(positive[:, None] - negative[None]) / 2 + 0.5  # (positive, negative, score)
    v10, v01 = above.mean(1), above.mean(0)
    return v10.mean(0), np.cov(v10.T) / len(positive) + np.cov(v01.T) / len(negative)


def test_areas_and_covariance_are_delongs():
    rng = np.random.default_rng(2)
    labels = (rng.random(80) < 0.4).astype(float)
    scores = np.round(labels[:, None] * [1.0, 0.4] + rng.normal(size=(80, 2)), 1)  # with ties
    result = auroc(scores, labels)
    areas, covariance = brute_force_delong(scores, labels)
    np.testing.assert_allclose(result.areas, areas)
    np.testing.assert_allclose(result.covariance, covariance)
    np.testing.assert_allclose(result.areas, [roc_auc_score(labels, s) for s in scores.T])


@pytest.mark.slow
def test_grouped_areas_are_delongs_for_groups_of_one_and_cover_for_others():
    rng = np.random.default_rng(3)
    labels = (rng.random(60) < 0.5).astype(float)
    scores = rng.normal(size=(60, 2))
    alone = auroc(scores, labels, rng.permutation(60))
    np.testing.assert_allclose(alone.covariance, auroc(scores, labels).covariance)
    covered, naive = [], []
    truth = stats.norm.cdf(1 / np.sqrt(2 * (1 + 1.0)))
    for _ in range(1500):
        groups = np.repeat(np.arange(50), 4)
        labels = np.tile([0.0, 1.0, 0.0, 1.0], 50)
        # Positives of a prompt share a term, and so do negatives.
        shared = rng.normal(size=(50, 2))[groups, labels.astype(int)]
        score = labels + shared + rng.normal(size=200)
        for hits, grouping in ((covered, groups), (naive, None)):
            low, high = auroc(score, labels, grouping).interval()
            hits.append(low[0] <= truth <= high[0])
    assert 0.93 <= np.mean(covered) <= 0.97
    assert np.mean(naive) < 0.92


def test_pairs_that_never_differ_still_need_prompts():
    variance, _ = variance_of_difference(np.ones(20), np.ones(20), np.arange(20))
    assert prompts_needed(0.01, variance) > 500


@pytest.mark.slow
def test_power_is_that_of_simulation():
    rng = np.random.default_rng(6)
    variance, pairs = variance_of_difference(*two_probes(rng, 20_000, delta=0.04))
    assert pairs == PER_PROMPT
    prompts = prompts_needed(0.04, variance, pairs, power=0.8)
    rejected = [paired_difference(*two_probes(rng, prompts, delta=0.04)).p_value <= 0.05 for _ in range(2000)]
    assert 0.77 <= np.mean(rejected) <= 0.83
    # By the normal approximation, the power with that many prompts is the one given.
    shift = 0.04 * np.sqrt(prompts / variance)
    assert 0.8 <= stats.norm.sf(stats.norm.ppf(0.975) - shift) <= 0.83


def candidates(rng, prompts, means):
    """Correlated outcomes of several candidates with given accuracies."""
    ability = rng.normal(size=(prompts, 1)) + 0.7 * rng.normal(size=(prompts, len(means)))
    return (ability < stats.norm.ppf(means) * np.sqrt(1 + 0.49)).astype(float)


def test_the_best_candidate_is_in_the_set_and_bad_ones_are_not():
    rng = np.random.default_rng(8)
    means = np.array([0.60, 0.70, 0.72, 0.72, 0.69])
    members = np.array(
        [best_candidates(candidates(rng, 400, means), np.arange(400), resamples=400).members for _ in range(400)]
    )
    for best in (2, 3):
        assert members[:, best].mean() >= 0.95
    assert members[:, 0].mean() < 0.05
    assert 0.2 < members[:, 1].mean() < 1.0


def test_equal_candidates_all_stay():
    rng = np.random.default_rng(9)
    members = [
        best_candidates(candidates(rng, 300, np.full(6, 0.7)), np.arange(300), resamples=400).members
        for _ in range(600)
    ]
    assert 0.92 <= np.mean([one.all() for one in members]) <= 0.98


def test_the_estimated_best_always_stays_and_copies_stay_together():
    rng = np.random.default_rng(10)
    values = candidates(rng, 200, np.array([0.6, 0.7, 0.8]))
    values = np.column_stack([values, values[:, 2]])
    result = best_candidates(values, np.arange(200))
    assert result.members.tolist() == [False, result.members[1], True, True]
    assert result.p_values[np.argmax(values.mean(0))] == 1.0 or result.p_values[3] == 1.0


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auroc(np.ones(4), np.array([1, 0, 0.5, 1])), "1 or 0"),
        (lambda: auroc(np.ones(4), np.array([1, 0, 0, 0.0])), "at least two observations"),
        (lambda: auroc(np.ones(4), np.ones(3)), "a label"),
        (lambda: auroc(np.arange(4.0), np.array([1, 1, 0, 0.0]), np.array([0, 0, 1, 2])), "two groups"),
        (lambda: prompts_needed(0, 1), "other than 0"),
        (lambda: prompts_needed(0.1, 1, power=1), "between 0 and 1"),
        (lambda: best_candidates(np.array([[1, np.nan], [1, 1], [0, 1.0]]), np.arange(3)), "the same pairs"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
