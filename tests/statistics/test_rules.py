"""Scoring rules: hand-worked cases, SciPy, and plain loops after the authors' own definitions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from probing.statistics import RULES, ScoredPairs, score

HALVES = [0.0, 0.5, 1.0]


def pairs_of(lists, *, prompts=None):
    """Every pair of ranked lists, each given as (ranks, rewards)."""
    rows = []
    for number, (ranks, rewards) in enumerate(lists):
        for i, j in combinations(range(len(ranks)), 2):
            choice = 0.5 * (1 + np.sign(ranks[j] - ranks[i]))
            rows.append((choice, rewards[i], rewards[j], number, f"{number}/{i}", f"{number}/{j}"))
    choices, first, second, number, left, right = (np.array(column) for column in zip(*rows, strict=True))
    groups = number if prompts is None else np.array(prompts)[number]
    return ScoredPairs(choices, first, second, groups, lists=number, items=np.stack([left, right]))


def plain(choices, margins, prompts=None, **more):
    margins = np.asarray(margins, dtype=float)
    prompts = np.arange(len(margins)) if prompts is None else np.asarray(prompts)
    return ScoredPairs(np.asarray(choices, dtype=float), margins, np.zeros(len(margins)), prompts, **more)


LISTS = st.lists(
    st.integers(2, 6).flatmap(
        lambda n: st.tuples(
            st.lists(st.integers(1, 4), min_size=n, max_size=n),
            st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=n, max_size=n),
        )
    ),
    min_size=1,
    max_size=6,
)


def value_or_none(rule, scored):
    try:
        return score(rule, scored).value
    except ValueError as error:
        if "no pair counts" not in str(error):
            raise
        return None


def test_predicted_ties_by_hand():
    # Right, wrong, tied, and a pair that chosen tied; the first two of one prompt.
    scored = plain([1.0, 1.0, 1.0, 0.5], [2.0, -1.0, 0.0, 3.0], ["a", "a", "b", "c"])
    result = {rule: score(rule, scored).value for rule in RULES if rule.startswith("m")}
    assert result == {
        "micro-half": 1.5 / 3,
        "micro-wrong": 1 / 3,
        "micro-dropped": 1 / 2,
        "macro-half": (1 / 2 + 1 / 2) / 2,
        "macro-wrong": (1 / 2 + 0) / 2,
        "macro-dropped": 1 / 2,
    }
    assert score("micro-half", scored).pairs == 3
    assert score("micro-dropped", scored).pairs == 2
    assert score("macro-dropped", scored).prompts == 1


@given(LISTS)
def test_inversions_are_those_counted_one_by_one(lists):
    expected = []
    for ranks, rewards in lists:
        inverted = 0.0
        for i, j in combinations(range(len(ranks)), 2):
            chosen, predicted = np.sign(ranks[j] - ranks[i]), np.sign(rewards[i] - rewards[j])
            inverted += 0.5 * (chosen != 0 and predicted == 0) + (chosen * predicted < 0)
        expected.append(1 - inverted / (len(ranks) * (len(ranks) - 1) / 2))
    assert score("inversions", pairs_of(lists)).value == pytest.approx(np.mean(expected))


def test_a_list_by_hand():
    # Ranks 1, 2, 2 and rewards in the order 2, 1, 3: of three pairs one is inverted, one chosen tied.
    scored = pairs_of([([1, 2, 2], [0.5, 0.1, 0.9])])
    assert score("inversions", scored).value == pytest.approx(2 / 3)
    assert score("micro-wrong", scored).value == pytest.approx(1 / 2)


@pytest.mark.parametrize(("rule", "oracle"), [("kendall", stats.kendalltau), ("spearman", stats.spearmanr)])
@given(lists=LISTS)
def test_rank_correlations_are_scipys(rule, oracle, lists):
    with np.errstate(all="ignore"):
        expected = [
            oracle([-r for r in ranks], rewards).statistic
            for ranks, rewards in lists
            if len(set(ranks)) > 1 and len(set(rewards)) > 1
        ]
    result = value_or_none(rule, pairs_of(lists))
    assert (result is None) == (not expected)
    if expected:
        assert result == pytest.approx(np.mean(expected))


def test_the_tie_threshold_is_tuned_on_validation_and_held():
    rng = np.random.default_rng(0)
    tied = rng.random(4000) < 0.4
    margins = np.where(tied, rng.uniform(-0.3, 0.3, 4000), rng.choice([-3.0, 3.0], 4000))
    choices = np.where(tied, 0.5, margins > 0)
    halves = [plain(choices[half], margins[half]) for half in (slice(0, 2000), slice(2000, None))]
    result = score("tuned-tie", halves[0], halves[1])
    # tanh(0.15) = 0.149 apart at most: from 0.2 on all ties are predicted, and 3 is tanh(1.5) = 0.905 apart.
    assert result.value == 1.0
    assert result.note.startswith("tied up to 0.2")
    with pytest.raises(ValueError, match="there are no validation pairs"):
        score("tuned-tie", halves[0])


@given(
    st.lists(st.tuples(st.sampled_from(HALVES), st.floats(-3, 3)), min_size=2, max_size=30),
    st.lists(st.tuples(st.sampled_from(HALVES), st.floats(-3, 3)), min_size=2, max_size=30),
)
def test_the_tuned_tie_after_its_definition(validation, test):
    def accuracy(pairs, threshold):
        total = 0.0
        for choice, margin in pairs:
            p0 = 1 / (1 + np.exp(-margin))
            label = {0.5: "tie", 1.0: "0", 0.0: "1"}[choice]
            result = "tie" if abs((1 - p0) - p0) <= threshold else "0" if p0 > 0.5 else "1"
            total += 1.0 if label == result else 0.5 * ("tie" in (label, result))
        return total / len(pairs)

    # Margins at a threshold would differ by rounding alone.
    on_the_edge = [abs(abs(np.tanh(m / 2)) - t / 10) < 1e-9 and m for _, m in [*validation, *test] for t in range(11)]
    if any(on_the_edge):
        return
    thresholds = [t / 10 for t in range(11)]
    best = thresholds[int(np.argmax([accuracy(validation, t) for t in thresholds]))]
    scored, tuned = (plain(*(np.array(c) for c in zip(*pairs, strict=True))) for pairs in (test, validation))
    assert score("tuned-tie", scored, tuned).value == pytest.approx(accuracy(test, best))


def test_four_ways_by_hand():
    choices, bad = np.array([1.0, 0.0, 0.5, 0.5]), np.array([False, False, False, True])
    first, second = np.array([1.0, 0.0, 2.0, -2.0]), np.array([0.0, 1.0, 2.0, -2.0])
    scored = ScoredPairs(choices, first, second, np.arange(4), both_bad=bad)
    # Left, right and the tie are correct; without validation no threshold of bad rewards is tuned.
    assert score("four-way", scored).value == 3 / 4
    # The published parser credits the predicted tie of the pair that is bad on both sides.
    assert score("four-way-parsed", scored).value == 1.0
    assert score("four-way", scored, scored).value == 1.0
    with pytest.raises(ValueError, match="not marked as both good or both bad"):
        score("four-way", plain([1.0, 0.0], [1.0, 1.0]))


@given(LISTS)
def test_swapping_sides_changes_no_rule(lists):
    scored = pairs_of(lists)
    swapped = ScoredPairs(
        1 - scored.choices, scored.second, scored.first, scored.prompts, scored.lists, scored.items[::-1]
    )
    for rule in RULES:
        if not RULES[rule].validated and not rule.startswith("four-way"):
            assert value_or_none(rule, scored) == pytest.approx(value_or_none(rule, swapped))


@given(LISTS, st.randoms(use_true_random=False))
def test_the_order_of_pairs_changes_no_rule(lists, random):
    scored = pairs_of(lists)
    order = random.sample(range(len(scored.choices)), len(scored.choices))
    moved = ScoredPairs(
        scored.choices[order],
        scored.first[order],
        scored.second[order],
        scored.prompts[order],
        scored.lists[order],
        scored.items[:, order],
    )
    for rule in ("micro-half", "macro-wrong", "inversions", "kendall", "spearman"):
        assert value_or_none(rule, scored) == pytest.approx(value_or_none(rule, moved))


def test_two_lists_of_one_prompt_are_drawn_together():
    """With one prompt there is no interval."""
    lists = [([1, 2], [1.0, 0.0]), ([1, 2], [0.0, 1.0])]
    one, two = (score("macro-half", pairs_of(lists, prompts=prompts)) for prompts in (["p", "p"], ["p", "q"]))
    assert (one.value, two.value) == (0.5, 0.5)
    assert np.isnan(one.low) and one.prompts == 1
    # Two prompts with opposite results say next to nothing.
    assert two.low < 0.1 and two.high > 0.9


def test_the_interval_covers():
    """The interval contains the truth in 95 ± 4% of 300 samples with correlated pairs."""
    rng, covered = np.random.default_rng(1), []
    for _ in range(300):
        chance = rng.beta(6, 3, 80)
        right = rng.random((80, 4)) < chance[:, None]
        result = score("micro-half", plain(np.ones(320), np.where(right, 1.0, -1.0).ravel(), np.repeat(range(80), 4)))
        covered.append(result.low <= 2 / 3 <= result.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.04)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: score("lenient", plain([1.0], [1.0])), "known are micro-half"),
        (lambda: score("inversions", plain([1.0, 0.0], [1.0, 1.0])), "not ranked lists"),
        (lambda: score("kendall", drop_first(pairs_of([([1, 2, 3], [1.0, 2.0, 3.0])]))), "some lists lack pairs"),
        (lambda: score("micro-half", plain([0.5, 0.5], [1.0, 1.0])), "no pair counts"),
        (lambda: plain([1.0], [np.nan]), "must be finite"),
        (lambda: plain([0.7], [1.0]), "round shares"),
        (lambda: plain([1.0, 0.0], [1.0]), "one choice, two rewards"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def drop_first(scored):
    return ScoredPairs(
        scored.choices[1:],
        scored.first[1:],
        scored.second[1:],
        scored.prompts[1:],
        scored.lists[1:],
        scored.items[:, 1:],
    )
