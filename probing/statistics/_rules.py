"""Scoring rules by name: the definitions of accuracy and rank correlation that benchmarks publish.

All rules take the same scored pairs, so results of one set of rewards differ by the rule alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Shaped

from probing.statistics._scoring import outcomes
from probing.statistics._shares import share_interval

THRESHOLDS = np.arange(11) / 10
"""Candidate thresholds: a difference of probabilities up to the threshold is a predicted tie."""
_LEVELS = np.linspace(0.0, 1.0, 11)
"""Candidate quantiles of the mean reward of a pair: below the quantile, both items are bad."""


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs with the annotators' choices and a scorer's rewards; each array has one value per pair.

    Attributes:
        choices: 1 for the first, 0 for the second, 0.5 for a tie.
        first: Reward of the first item; rewards are logits: P(first) = 1 / (1 + exp(second − first)).
        second: Reward of the second item.
        prompts: Prompt group; resamples keep it whole.
        lists: Ranked list that the pair comes from; None for data without lists.
        items: Names of the first and the second item, (2, pair); needed for rank correlations.
        both_bad: Whether annotators marked both items as bad; None for data without that mark.
        incomplete: Whether the pair's list lost a pair for lack of a reward; None if none did.
    """

    choices: Float[np.ndarray, " pair"]
    first: Float[np.ndarray, " pair"]
    second: Float[np.ndarray, " pair"]
    prompts: Shaped[np.ndarray, " pair"]
    lists: Shaped[np.ndarray, " pair"] | None = None
    items: Shaped[np.ndarray, "2 pair"] | None = None
    both_bad: Bool[np.ndarray, " pair"] | None = None
    incomplete: Bool[np.ndarray, " pair"] | None = None

    def __post_init__(self) -> None:
        for name in ("choices", "first", "second"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=float))
        lengths = {len(a) for a in (self.choices, self.first, self.second, self.prompts)}
        if len(lengths) != 1:
            raise ValueError(f"Each pair has one choice, two rewards and a prompt, got lengths {sorted(lengths)}.")
        if not (np.isfinite(self.first).all() and np.isfinite(self.second).all()):
            raise ValueError("Rewards must be finite; look for NaN among the scores.")
        if not np.isin(self.choices, (0.0, 0.5, 1.0)).all():
            raise ValueError("Choices are 1 (first), 0 (second) or 0.5 (tie); round shares of annotators first.")

    @property
    def margins(self) -> Float[np.ndarray, " pair"]:
        """Reward of the first item minus that of the second."""
        margins: Float[np.ndarray, " pair"] = self.first - self.second
        return margins


@dataclass(frozen=True)
class Score:
    """A scorer's result under one rule, with a 95% interval over prompts.

    Attributes:
        rule: Name of the rule.
        value: The result.
        low: Lower end of the interval.
        high: Upper end of the interval.
        pairs: Number of pairs that count.
        prompts: Number of prompts that count.
        note: Values that the rule tuned.
    """

    rule: str
    value: float
    low: float
    high: float
    pairs: int
    prompts: int
    note: str = ""


@dataclass(frozen=True)
class _Counted:
    """One value per pair or list (NaN: left out), its prompt, and the number of pairs."""

    values: Float[np.ndarray, " unit"]
    prompts: Shaped[np.ndarray, " unit"]
    pairs: int
    note: str = ""


@dataclass(frozen=True)
class Rule:
    """A scoring rule.

    Attributes:
        description: Definition in one line.
        count: Function that computes the values, from scored pairs and validation pairs.
        validated: Whether it tunes a threshold on validation pairs.
        least: Smallest possible value: 0 for an accuracy, −1 for a correlation; the largest is 1.
    """

    description: str
    count: Callable[[ScoredPairs, ScoredPairs | None], _Counted] = field(repr=False)
    validated: bool = False
    least: float = 0.0


def score(rule: str, scored: ScoredPairs, validation: ScoredPairs | None = None) -> Score:
    """Score by a rule of :data:`RULES`, with an interval over prompts, in which tuned thresholds stay fixed.

    Args:
        rule: Name of the rule.
        scored: Pairs to score.
        validation: Pairs of other prompts, for rules that tune a threshold.

    Raises:
        ValueError: Unknown rule, pairs that do not fit the rule, or no pair that counts; with the reason.
    """
    if rule not in RULES:
        raise ValueError(f"Unknown rule {rule!r}; known are {', '.join(RULES)}.")
    if RULES[rule].validated and validation is None:
        raise ValueError("it tunes a threshold and there are no validation pairs")
    counted = RULES[rule].count(scored, validation)
    keep = ~np.isnan(counted.values)
    if not keep.any():
        raise ValueError("no pair counts")
    prompts = counted.prompts[keep]
    distinct = len(np.unique(prompts))
    values = counted.values[keep]
    low = high = float("nan")
    if distinct > 1:
        # A correlation is mapped to a share and back.
        least = RULES[rule].least
        interval = share_interval((values - least) / (1 - least), prompts)
        low, high = (float(least + (1 - least) * end) for end in (interval.low, interval.high))
    return Score(rule, float(values.mean()), low, high, counted.pairs, distinct, counted.note)


def _micro(ties: str, scored: ScoredPairs, validation: ScoredPairs | None = None) -> _Counted:
    values = _agreement(ties, scored)
    return _Counted(values, scored.prompts, int((~np.isnan(values)).sum()))


def _macro(ties: str, scored: ScoredPairs, validation: ScoredPairs | None = None) -> _Counted:
    values = _agreement(ties, scored)
    means, prompts = _by_list(values, scored, scored.prompts if scored.lists is None else scored.lists)
    return _Counted(means, prompts, int((~np.isnan(values)).sum()))


def _agreement(ties: str, scored: ScoredPairs) -> Float[np.ndarray, " pair"]:
    margins = scored.margins
    if ties == "dropped":
        values = outcomes(margins, scored.choices)
        return np.where(margins == 0, np.nan, values)
    return outcomes(margins, scored.choices, tie_rule=ties)


def _inversions(scored: ScoredPairs, validation: ScoredPairs | None = None) -> _Counted:
    values = np.where(scored.choices == 0.5, 1.0, outcomes(scored.margins, scored.choices))
    means, prompts = _by_list(values, scored, _complete_lists(scored))
    return _Counted(means, prompts, len(values))


def _kendall(scored: ScoredPairs, validation: ScoredPairs | None = None) -> _Counted:
    lists = _complete_lists(scored)
    chosen, predicted = np.sign(scored.choices - 0.5), np.sign(scored.margins)
    sums = [_by_list(values, scored, lists)[0] for values in (chosen * predicted, chosen**2, predicted**2)]
    with np.errstate(invalid="ignore"):
        values = sums[0] / np.sqrt(sums[1] * sums[2])
    return _Counted(values, _by_list(chosen, scored, lists)[1], len(chosen))


def _spearman(scored: ScoredPairs, validation: ScoredPairs | None = None) -> _Counted:
    lists = _complete_lists(scored)
    chosen, predicted = np.sign(scored.choices - 0.5), np.sign(scored.margins)
    _, code = np.unique(lists, return_inverse=True)
    # An item of two lists is one entry in each.
    names, name = np.unique(np.asarray(scored.items).ravel(), return_inverse=True)
    entries, entry = np.unique(np.tile(code, 2) * len(names) + name, return_inverse=True)
    first, second = entry.reshape(2, -1)
    count, list_of = len(entries), entries // len(names)

    def net_wins(signs: Float[np.ndarray, " pair"]) -> Float[np.ndarray, " entry"]:
        # Wins minus losses within the list: a linear function of the mean rank.
        return np.bincount(first, signs, count) - np.bincount(second, signs, count)

    a, b = net_wins(chosen), net_wins(predicted)
    sums = [np.bincount(list_of, products) for products in (a * b, a**2, b**2)]
    with np.errstate(invalid="ignore"):
        values = sums[0] / np.sqrt(sums[1] * sums[2])
    return _Counted(values, _by_list(chosen, scored, lists)[1], len(chosen))


def _tuned_tie(scored: ScoredPairs, validation: ScoredPairs | None = None) -> _Counted:
    assert validation is not None
    means = [_three_way(validation, threshold).mean() for threshold in THRESHOLDS]
    threshold = THRESHOLDS[int(np.argmax(means))]
    return _Counted(
        _three_way(scored, threshold), scored.prompts, len(scored.choices), f"tied up to {threshold:g}, from validation"
    )


def _three_way(scored: ScoredPairs, threshold: float) -> Float[np.ndarray, " pair"]:
    chosen = np.sign(scored.choices - 0.5)
    predicted = np.where(_probability_gap(scored) <= threshold, 0.0, np.sign(scored.margins))
    # A tie on one side only is half right.
    return np.where(chosen == predicted, 1.0, np.where((chosen == 0) | (predicted == 0), 0.5, 0.0))


def _four_way(merged: bool, scored: ScoredPairs, validation: ScoredPairs | None = None) -> _Counted:
    if scored.both_bad is None:
        raise ValueError("ties are not marked as both good or both bad")
    threshold, level, note = 0.0, -np.inf, "a tie where rewards are equal, never both bad"
    if validation is not None and validation.both_bad is not None:
        levels = np.quantile((validation.first + validation.second) / 2, _LEVELS)
        candidates = [(t, quantile) for t in THRESHOLDS for quantile in levels]
        threshold, level = max(
            candidates, key=lambda pair: _four_way_outcomes(validation, pair[0], pair[1], merged).mean()
        )
        note = f"tied up to {threshold:g}, bad below {level:.3g}, from validation"
    return _Counted(_four_way_outcomes(scored, threshold, level, merged), scored.prompts, len(scored.choices), note)


def _four_way_outcomes(scored: ScoredPairs, threshold: float, level: float, merged: bool) -> Float[np.ndarray, " pair"]:
    assert scored.both_bad is not None
    chosen = np.where(scored.both_bad, -2.0, np.sign(scored.choices - 0.5))
    low = (scored.first + scored.second) / 2 < level
    tie = np.where(low, -2.0, 0.0)
    predicted = np.where(_probability_gap(scored) <= threshold, tie, np.sign(scored.margins))
    right = chosen == predicted
    if merged:
        right |= (predicted == 0.0) & scored.both_bad
    outcome: Float[np.ndarray, " pair"] = right.astype(float)
    return outcome


def _probability_gap(scored: ScoredPairs) -> Float[np.ndarray, " pair"]:
    """Absolute difference between the two items' probabilities of being chosen."""
    gap: Float[np.ndarray, " pair"] = np.abs(np.tanh(scored.margins / 2))
    return gap


def _by_list(
    values: Float[np.ndarray, " pair"], scored: ScoredPairs, lists: Shaped[np.ndarray, " pair"]
) -> tuple[Float[np.ndarray, " list"], Shaped[np.ndarray, " list"]]:
    """Mean over each list's pairs, NaN left out, and each list's prompt."""
    _, first, code = np.unique(lists, return_index=True, return_inverse=True)
    keep = ~np.isnan(values)
    counts = np.bincount(code, keep, len(first))
    with np.errstate(invalid="ignore"):
        means = np.bincount(code, np.where(keep, values, 0.0), len(first)) / counts
    return means, np.asarray(scored.prompts)[first]


def _complete_lists(scored: ScoredPairs) -> Shaped[np.ndarray, " pair"]:
    """Return the lists; each must have all of its C(n, 2) pairs."""
    if scored.lists is None or scored.items is None:
        raise ValueError("these are pairs, not ranked lists")
    if scored.incomplete is not None and scored.incomplete.any():
        raise ValueError("some lists lack an item's reward; it needs every pair of a list")
    lists = np.asarray(scored.lists)
    _, code = np.unique(lists, return_inverse=True)
    names, name = np.unique(np.asarray(scored.items).ravel(), return_inverse=True)
    pairs = np.bincount(code)
    sizes = np.bincount(np.unique(np.tile(code, 2) * len(names) + name) // len(names))
    if (pairs != sizes * (sizes - 1) // 2).any():
        raise ValueError("some lists lack pairs; it needs every pair of a list")
    return lists


RULES: dict[str, Rule] = {
    "micro-half": Rule("over untied pairs; a predicted tie counts one half", partial(_micro, "half")),
    "micro-wrong": Rule("over untied pairs; a predicted tie is wrong", partial(_micro, "wrong")),
    "micro-dropped": Rule("over untied pairs; predicted ties are left out", partial(_micro, "dropped")),
    "macro-half": Rule("mean over lists or prompts; a predicted tie counts one half", partial(_macro, "half")),
    "macro-wrong": Rule("mean over lists or prompts; a predicted tie is wrong", partial(_macro, "wrong")),
    "macro-dropped": Rule("mean over lists or prompts; predicted ties are left out", partial(_macro, "dropped")),
    "two-way": Rule(
        "over untied pairs, each asked in both orders; a predicted tie is right in one of them", partial(_micro, "half")
    ),
    "inversions": Rule("1 − inversions / C(n, 2), mean over lists; tied choices count as right", _inversions),
    "tuned-tie": Rule(
        "all pairs, also ties; half right where one side is a tie, threshold from validation",
        _tuned_tie,
        validated=True,
    ),
    "four-way": Rule("all pairs: left, right, tie or both bad", partial(_four_way, False)),
    "four-way-parsed": Rule(
        "as four-way, and a predicted tie is right for both bad: GenAI-Bench's published parser",
        partial(_four_way, True),
    ),
    "kendall": Rule("Kendall's τ-b, mean over lists", _kendall, least=-1.0),
    "spearman": Rule("Spearman's ρ, mean over lists", _spearman, least=-1.0),
}
"""Rules by name. HPDv3 and ImageReward score by micro-wrong, HPSv2's script for ImageReward by macro-wrong, HPDv2 by
inversions (with a predicted tie, which its script breaks by order, counting one half), Pick-a-Pic by tuned-tie,
GenAI-Bench by four-way, or without ties by micro-wrong, Multimodal RewardBench 2 by two-way: a reward answers both
orders alike, so that it is micro-half by another name."""
