"""Cluster bootstrap over prompts: whole prompt groups are drawn again, never single pairs.

A resample gives each group a weight (how often it was drawn), so all resamples of all columns are one product
of a weight matrix with the groups' sums (Field and Welsh 2007, section 3). Groups with equal sums are the same to it:
right and wrong come in few kinds, so drawing how often each *kind* comes up has the same distribution and costs next
to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

RESAMPLES = 2000
CONFIDENCE = 0.95
Method = Literal["percentile", "bca"]
METHODS: tuple[str, ...] = get_args(Method)
_WEIGHTS_AT_ONCE = 2**24


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; arrays where several columns were given."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Difference(Interval):
    """A paired difference, its interval, and its two-sided p-value under no difference."""

    p_value: np.ndarray


@dataclass(frozen=True)
class GroupSums:
    """What each group adds to each column.

    Attributes:
        sums: (group, column) sum over its pairs.
        counts: (group, column) how many there are.
    """

    sums: np.ndarray
    counts: np.ndarray

    @property
    def estimate(self) -> Float[np.ndarray, " column"]:
        """Mean over pairs."""
        return self.sums.sum(axis=0) / self.counts.sum(axis=0)


def cluster_bootstrap(
    values: Float[np.ndarray, "pair ..."],
    groups: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    method: Method = "percentile",
    seed: int = 0,
) -> Interval:
    """Mean over pairs with an interval over groups.

    Args:
        values: One row a pair; each further column gets the interval that it would get alone. NaN is left out, column
            by column.
        groups: (pair,) the prompt of each; all pairs of a group are drawn together.
        resamples: How often to draw as many groups as there are, with replacement.
        confidence: Of the interval.
        method: ``percentile``, or ``bca`` (Efron 1987: corrected for bias and skewness, the latter by leaving out one
            group at a time), which near 0 and 1 misses more evenly on both sides. Of 30 prompts nearly always right,
            neither quite covers at its level.
        seed: Of the draws.

    Raises:
        ValueError: Lengths differ, fewer than two groups, a column without any value, or an unknown method.
    """
    by_group, shape = sums_by_group(values, groups)
    drawn = resampled_means(by_group, resamples, seed)
    low, high = _interval(by_group, drawn, confidence, method)
    return Interval(*(part.reshape(shape)[()] for part in (by_group.estimate, low, high)))


def paired_difference(
    first: Float[np.ndarray, "pair ..."],
    second: Float[np.ndarray, "pair ..."],
    groups: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    method: Method = "percentile",
    seed: int = 0,
) -> Difference:
    """Mean of ``first − second`` on the same pairs, with interval and p-value.

    The p-value is twice the smaller share of resampled differences on either side of zero, each counted with one
    more (Davison and Hinkley 1997, equation 4.11), so it is never zero.

    Raises:
        ValueError: As :func:`cluster_bootstrap`, or the two differ in shape.
    """
    by_group, shape = sums_by_group(difference_of(first, second), groups)
    drawn = resampled_means(by_group, resamples, seed)
    low, high = _interval(by_group, drawn, confidence, method)
    below, above = ((drawn <= 0).sum(axis=0) + 1, (drawn >= 0).sum(axis=0) + 1)
    p_value = np.minimum(1.0, 2 * np.minimum(below, above) / (resamples + 1))
    return Difference(*(part.reshape(shape)[()] for part in (by_group.estimate, low, high, p_value)))


def difference_of(first: Float[np.ndarray, "pair ..."], second: Float[np.ndarray, "pair ..."]) -> np.ndarray:
    """Subtract outcomes on the same pairs.

    Raises:
        ValueError: They differ in shape.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"A paired difference needs the same pairs twice, got shapes {first.shape}, {second.shape}.")
    return first - second


def sums_by_group(values: Float[np.ndarray, "pair ..."], groups: np.ndarray) -> tuple[GroupSums, tuple[int, ...]]:
    """Sum values by group, all columns side by side; also return the shape of what is estimated.

    Raises:
        ValueError: As :func:`cluster_bootstrap`.
    """
    values = np.asarray(values, dtype=float)
    groups = np.asarray(groups)
    if groups.shape != values.shape[:1]:
        raise ValueError(f"Each pair has one group, got {groups.shape[0]} groups for {values.shape[0]} pairs.")
    _, code = np.unique(groups, return_inverse=True)
    clusters = int(code.max(initial=-1)) + 1
    if clusters < 2:
        raise ValueError(f"An interval over prompts needs at least 2 prompts, got {clusters}.")
    columns = values.reshape(len(values), -1)
    there = ~np.isnan(columns)
    if not there.any(axis=0).all():
        raise ValueError("A column has no untied pair; nothing can be said of it.")
    sums, counts = (
        np.stack([np.bincount(code, column, clusters) for column in table.T], axis=1)
        for table in (np.where(there, columns, 0.0), there.astype(float))
    )
    return GroupSums(sums, counts), values.shape[1:]


def resampled_means(
    by_group: GroupSums, resamples: int, seed: int, *, joint: bool = False
) -> Float[np.ndarray, "resample column"]:
    """Draw as many groups as there are, with replacement, again and again: the mean over pairs of each draw.

    Args:
        by_group: What is drawn.
        resamples: How often.
        seed: Of the draws. A column's draws do not depend on the other columns.
        joint: Whether a row must be the same draw of groups in every column, as joint statements need.
    """
    groups, columns = by_group.sums.shape
    drawn = np.empty((resamples, columns))
    rest = list(range(columns))
    if not joint:
        rest = []
        for column in range(columns):
            sums, counts = by_group.sums[:, column], by_group.counts[:, column]
            sign = _side(sums)
            kinds, times = np.unique(sign * sums + 1j * counts, return_counts=True)
            if len(kinds) > groups // 2:
                rest.append(column)
                continue
            weights = np.random.default_rng(seed).multinomial(groups, times / groups, size=resamples)
            with np.errstate(invalid="ignore"):
                drawn[:, column] = sign * (weights @ kinds.real) / (weights @ kinds.imag)
    if rest:
        rng = np.random.default_rng(seed)
        sums, counts = by_group.sums[:, rest], by_group.counts[:, rest]
        step = max(1, _WEIGHTS_AT_ONCE // groups)
        for start in range(0, resamples, step):
            stop = min(start + step, resamples)
            # With as many kinds as groups, counting draws is faster than a multinomial.
            rows = rng.integers(groups, size=(stop - start, groups), dtype=np.int32)
            weights = np.stack([np.bincount(row, minlength=groups) for row in rows]).astype(float)
            with np.errstate(invalid="ignore"):
                drawn[start:stop, rest] = (weights @ sums) / (weights @ counts)
    return drawn


def _side(sums: Float[np.ndarray, " group"]) -> float:
    """Return the sign that makes a column and its negative the same: what is said of a − b then holds for b − a."""
    ordered = np.sort(sums)
    lopsided = ordered + ordered[::-1]
    return -1.0 if (lopsided[lopsided != 0.0][:1] < 0).any() else 1.0


def _interval(by_group: GroupSums, drawn: np.ndarray, confidence: float, method: str) -> tuple[np.ndarray, np.ndarray]:
    if method not in METHODS:
        raise ValueError(f"Unknown interval method {method!r}; known are {', '.join(METHODS)}.")
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if method == "percentile":
        low, high = np.nanquantile(drawn, tails, axis=0)
        return low, high
    levels = _bca_levels(by_group, drawn, tails)
    ends = [np.nanquantile(drawn[:, column], levels[:, column]) for column in range(drawn.shape[1])]
    low, high = np.array(ends).T
    return low, high


def _bca_levels(by_group: GroupSums, drawn: np.ndarray, tails: np.ndarray) -> Float[np.ndarray, "tail column"]:
    """Move the tails' levels by bias and acceleration (Efron 1987, equation 2.3)."""
    estimate, sums, counts = by_group.estimate, by_group.sums, by_group.counts
    # Of a statistic with few values, a draw equal to the estimate is half below it. Never quite none or all.
    below = (drawn < estimate).sum(axis=0) + 0.5 * (drawn == estimate).sum(axis=0)
    bias = norm.ppf(np.clip(below, 0.5, len(drawn) - 0.5) / len(drawn))
    with np.errstate(invalid="ignore", divide="ignore"):
        left_out = (sums.sum(axis=0) - sums) / (counts.sum(axis=0) - counts)
        away = np.where(np.isfinite(left_out), left_out.mean(axis=0) - left_out, 0.0)
        acceleration = (away**3).sum(axis=0) / (6 * (away**2).sum(axis=0) ** 1.5)
    acceleration = np.where(np.isfinite(acceleration), acceleration, 0.0)
    moved = bias + norm.ppf(tails)[:, None]
    return norm.cdf(bias + moved / (1 - acceleration * moved))
