"""Scoring rules by name: how each benchmark's authors turn rewards into one number, with its interval.

All rules read the same table of scored pairs, so that one set of rewards shows what the rule alone does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from jaxtyping import Bool, Float

from probing.statistics.bootstrap import RESAMPLES, cluster_bootstrap
from probing.statistics.scoring import outcomes

THRESHOLDS = np.arange(11) / 10
"""Differences of probability up to which two pictures are called tied, tried on the validation pairs."""
_LEVELS = np.linspace(0.0, 1.0, 11)


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs with people's choices and a scorer's rewards; each array has one value a pair.

    Attributes:
        choices: 1 the first was chosen, 0 the second, 0.5 a tie.
        first: Reward of the first item; rewards are logits: P(first) = 1 / (1 + exp(second − first)).
        second: Reward of the second item.
        prompts: The prompt group, which resamples never cut.
        lists: The ranked list that the pair comes from, or None where pairs are all there is.
        items: Names of the first and the second item, (2, pair); needed for rank correlations.
        both_bad: Whether people called both bad, where the ties say so.
    """

    choices: Float[np.ndarray, " pair"]
    first: Float[np.ndarray, " pair"]
    second: Float[np.ndarray, " pair"]
    prompts: np.ndarray
    lists: np.ndarray | None = None
    items: np.ndarray | None = None
    both_bad: Bool[np.ndarray, " pair"] | None = None

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
        return self.first - self.second


@dataclass(frozen=True)
class Score:
    """What a rule says of a scorer, with a 95% interval over prompts.

    ``pairs`` is how many pairs count, ``note`` what was tuned.
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
    """One value a pair or a list (NaN: left out), its prompt, and how many pairs are behind them."""

    values: np.ndarray
    prompts: np.ndarray
    pairs: int
    note: str = ""


@dataclass(frozen=True)
class Rule:
    """A scoring rule.

    Attributes:
        says: What it does, in a line.
        count: Does it.
        validated: Whether it tunes something on validation pairs.
    """

    says: str
    count: Callable[[ScoredPairs, ScoredPairs | None], _Counted] = field(repr=False)
    validated: bool = False


def score(
    rule: str, scored: ScoredPairs, validation: ScoredPairs | None = None, *, resamples: int = RESAMPLES, seed: int = 0
) -> Score:
    """Score by a rule of :data:`RULES`; the interval is a cluster bootstrap over prompts, what is tuned held fixed.

    Args:
        rule: Its name.
        scored: The pairs that count.
        validation: Pairs of other prompts, for the rules that tune a threshold.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ValueError: Unknown rule, pairs that the rule cannot be asked of, or none that count; with the reason.
    """
    if rule not in RULES:
        raise ValueError(f"Unknown rule {rule!r}; known are {', '.join(RULES)}.")
    if RULES[rule].validated and validation is None:
        raise ValueError("it tunes a threshold and there are no validation pairs")
    counted = RULES[rule].count(scored, validation)
    there = ~np.isnan(counted.values)
    if not there.any():
        raise ValueError("no pair counts")
    prompts = counted.prompts[there]
    distinct = len(np.unique(prompts))
    values = counted.values[there]
    low = high = float("nan")
    if distinct > 1:
        interval = cluster_bootstrap(values, prompts, resamples=resamples, seed=seed)
        low, high = float(interval.low), float(interval.high)
    return Score(rule, float(values.mean()), low, high, counted.pairs, distinct, counted.note)


def _micro(ties: str, scored: ScoredPairs, validation: ScoredPairs | None = None) -> _Counted:
    values = _agreement(ties, scored)
    return _Counted(values, scored.prompts, int((~np.isnan(values)).sum()))


def _macro(ties: str, scored: ScoredPairs, validation: ScoredPairs | None = None) -> _Counted:
    values = _agreement(ties, scored)
    means, prompts = _by_list(values, scored, scored.prompts if scored.lists is None else scored.lists)
    return _Counted(means, prompts, int((~np.isnan(values)).sum()))


def _agreement(ties: str, scored: ScoredPairs) -> np.ndarray:
    margins = scored.margins
    if ties == "dropped":
        values = outcomes(margins, scored.choices)
        return np.where(margins == 0, np.nan, values)
    return outcomes(margins, scored.choices, tie_rule=ties)


def _inversions(scored: ScoredPairs, validation: ScoredPairs | None = None) -> _Counted:
    values = np.where(scored.choices == 0.5, 1.0, outcomes(scored.margins, scored.choices))
    means, prompts = _by_list(values, scored, _whole_lists(scored))
    return _Counted(means, prompts, len(values))


def _kendall(scored: ScoredPairs, validation: ScoredPairs | None = None) -> _Counted:
    lists = _whole_lists(scored)
    people, scorer = np.sign(scored.choices - 0.5), np.sign(scored.margins)
    sums = [_by_list(values, scored, lists)[0] for values in (people * scorer, people**2, scorer**2)]
    with np.errstate(invalid="ignore"):
        values = sums[0] / np.sqrt(sums[1] * sums[2])
    return _Counted(values, _by_list(people, scored, lists)[1], len(people))


def _spearman(scored: ScoredPairs, validation: ScoredPairs | None = None) -> _Counted:
    lists = _whole_lists(scored)
    people, scorer = np.sign(scored.choices - 0.5), np.sign(scored.margins)
    _, code = np.unique(lists, return_inverse=True)
    # An item that stands in two lists has a standing in each.
    names, name = np.unique(np.asarray(scored.items).ravel(), return_inverse=True)
    entries, entry = np.unique(np.tile(code, 2) * len(names) + name, return_inverse=True)
    first, second = entry.reshape(2, -1)
    count, list_of = len(entries), entries // len(names)

    def standing(signs: np.ndarray) -> np.ndarray:
        # Wins less losses against the whole list: the mean rank, turned around and stretched.
        return np.bincount(first, signs, count) - np.bincount(second, signs, count)

    ours, theirs = standing(people), standing(scorer)
    lengths = [np.bincount(list_of, weights) for weights in (ours * theirs, ours**2, theirs**2)]
    with np.errstate(invalid="ignore"):
        values = lengths[0] / np.sqrt(lengths[1] * lengths[2])
    return _Counted(values, _by_list(people, scored, lists)[1], len(people))


def _tuned_tie(scored: ScoredPairs, validation: ScoredPairs | None = None) -> _Counted:
    assert validation is not None
    found = [_three_way(validation, threshold).mean() for threshold in THRESHOLDS]
    threshold = THRESHOLDS[int(np.argmax(found))]
    return _Counted(
        _three_way(scored, threshold), scored.prompts, len(scored.choices), f"tied up to {threshold:g}, from validation"
    )


def _three_way(scored: ScoredPairs, threshold: float) -> np.ndarray:
    people = np.sign(scored.choices - 0.5)
    scorer = np.where(_apart(scored) <= threshold, 0.0, np.sign(scored.margins))
    # One of two calling a tie is half right.
    return np.where(people == scorer, 1.0, np.where((people == 0) | (scorer == 0), 0.5, 0.0))


def _four_way(scored: ScoredPairs, validation: ScoredPairs | None = None) -> _Counted:
    if scored.both_bad is None:
        raise ValueError("people's ties do not say whether both were bad")
    threshold, level, note = 0.0, -np.inf, "a tie where rewards are equal, never both bad"
    if validation is not None and validation.both_bad is not None:
        levels = np.quantile((validation.first + validation.second) / 2, _LEVELS)
        tried = [(t, one) for t in THRESHOLDS for one in levels]
        threshold, level = max(tried, key=lambda pair: _answers(validation, *pair).mean())
        note = f"tied up to {threshold:g}, bad below {level:.3g}, from validation"
    return _Counted(_answers(scored, threshold, level), scored.prompts, len(scored.choices), note)


def _answers(scored: ScoredPairs, threshold: float, level: float) -> np.ndarray:
    assert scored.both_bad is not None
    people = np.where(scored.both_bad, -2.0, np.sign(scored.choices - 0.5))
    low = (scored.first + scored.second) / 2 < level
    scorer = np.where(_apart(scored) <= threshold, np.where(low, -2.0, 0.0), np.sign(scored.margins))
    return (people == scorer).astype(float)


def _apart(scored: ScoredPairs) -> np.ndarray:
    """Difference between the two probabilities of being chosen."""
    return np.abs(np.tanh(scored.margins / 2))


def _by_list(values: np.ndarray, scored: ScoredPairs, lists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over each list's pairs, NaN left out, and each list's prompt."""
    _, first, code = np.unique(lists, return_index=True, return_inverse=True)
    there = ~np.isnan(values)
    counts = np.bincount(code, there, len(first))
    with np.errstate(invalid="ignore"):
        means = np.bincount(code, np.where(there, values, 0.0), len(first)) / counts
    return means, np.asarray(scored.prompts)[first]


def _whole_lists(scored: ScoredPairs) -> np.ndarray:
    """Give the lists, all of whose C(n, 2) pairs must be there."""
    if scored.lists is None or scored.items is None:
        raise ValueError("these are pairs, not ranked lists")
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
    "inversions": Rule("1 − inversions / C(n, 2), mean over lists; people's ties count as right", _inversions),
    "tuned-tie": Rule(
        "all pairs, ties too; half right where one side is a tie, threshold from validation", _tuned_tie, validated=True
    ),
    "four-way": Rule("all pairs: left, right, tie or both bad", _four_way),
    "kendall": Rule("Kendall's τ-b, mean over lists", _kendall),
    "spearman": Rule("Spearman's ρ, mean over lists", _spearman),
}
"""By name. HPDv3 and ImageReward score by micro-wrong, HPSv2's script for ImageReward by macro-wrong, HPDv2 by
inversions (with a predicted tie, which its script breaks by order, counting one half), Pick-a-Pic by tuned-tie,
GenAI-Bench by four-way, or without ties by micro-wrong."""
