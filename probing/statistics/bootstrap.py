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
_COLUMNS_OF_KINDS = 4
"""With more columns than this, hardly two groups are equal, and looking for them costs more than it saves."""


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
class Kinds:
    """Groups by what they add to each column: rows that are alike are one kind.

    Attributes:
        sums: (kind, column) sum over the pairs of one such group.
        counts: (kind, column) its pairs.
        times: (kind,) how many groups are of the kind.
    """

    sums: np.ndarray
    counts: np.ndarray
    times: np.ndarray

    @property
    def estimate(self) -> np.ndarray:
        return (self.times @ self.sums) / (self.times @ self.counts)


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
        values: One row a pair; further columns are resampled alike. NaN is left out, column by column.
        groups: (pair,) the prompt of each; all pairs of a group are drawn together.
        resamples: How often to draw as many groups as there are, with replacement.
        confidence: Of the interval.
        method: ``percentile``, or ``bca`` (Efron 1987: corrected for bias and skewness, the latter by leaving out one
            group at a time), which does better near 0 and 1 and with few groups.
        seed: Of the draws.

    Raises:
        ValueError: Lengths differ, fewer than two groups, a column without any value, or an unknown method.
    """
    kinds, shape = kinds_of(values, groups)
    drawn = resampled_means(kinds, resamples, seed)
    low, high = _interval(kinds, drawn, confidence, method)
    return Interval(*(part.reshape(shape)[()] for part in (kinds.estimate, low, high)))


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
    kinds, shape = kinds_of(difference_of(first, second), groups)
    drawn = resampled_means(kinds, resamples, seed)
    low, high = _interval(kinds, drawn, confidence, method)
    below, above = ((drawn <= 0).sum(axis=0) + 1, (drawn >= 0).sum(axis=0) + 1)
    p_value = np.minimum(1.0, 2 * np.minimum(below, above) / (resamples + 1))
    return Difference(*(part.reshape(shape)[()] for part in (kinds.estimate, low, high, p_value)))


def difference_of(first: Float[np.ndarray, "pair ..."], second: Float[np.ndarray, "pair ..."]) -> np.ndarray:
    """Subtract outcomes on the same pairs.

    Raises:
        ValueError: They differ in shape.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"A paired difference needs the same pairs twice, got shapes {first.shape}, {second.shape}.")
    return first - second


def kinds_of(values: Float[np.ndarray, "pair ..."], groups: np.ndarray) -> tuple[Kinds, tuple[int, ...]]:
    """Sum values by group, and groups by kind; also return the shape of what is estimated.

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
    filled = np.where(there, columns, 0.0)
    sums, counts = (
        np.stack([np.bincount(code, column, clusters) for column in table.T], axis=1)
        for table in (filled, there.astype(float))
    )
    times = np.ones(clusters, dtype=np.int64)
    if columns.shape[1] <= _COLUMNS_OF_KINDS:
        both, times = np.unique(np.hstack([sums, counts]), axis=0, return_counts=True)
        sums, counts = np.hsplit(both, 2)
    return Kinds(sums, counts, times.astype(float)), values.shape[1:]


def resampled_means(kinds: Kinds, resamples: int, seed: int) -> Float[np.ndarray, "resample column"]:
    """Draw as many groups as there are, with replacement, again and again: the mean over pairs of each draw."""
    rng = np.random.default_rng(seed)
    count = len(kinds.times)
    groups = int(kinds.times.sum())
    drawn = np.empty((resamples, kinds.sums.shape[1]))
    step = max(1, _WEIGHTS_AT_ONCE // count)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        if count < groups:
            weights = rng.multinomial(groups, kinds.times / groups, size=size).astype(float)
        else:
            # Of a multinomial with as many kinds as groups, counting draws is the faster way.
            rows = rng.integers(groups, size=(size, groups), dtype=np.int32)
            weights = np.stack([np.bincount(row, minlength=groups) for row in rows]).astype(float)
        with np.errstate(invalid="ignore"):
            drawn[start : start + size] = (weights @ kinds.sums) / (weights @ kinds.counts)
    return drawn


def _interval(kinds: Kinds, drawn: np.ndarray, confidence: float, method: str) -> tuple[np.ndarray, np.ndarray]:
    if method not in METHODS:
        raise ValueError(f"Unknown interval method {method!r}; known are {', '.join(METHODS)}.")
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if method == "percentile":
        low, high = np.nanquantile(drawn, tails, axis=0)
        return low, high
    levels = _bca_levels(kinds, drawn, tails)
    ends = [np.nanquantile(drawn[:, column], levels[:, column]) for column in range(drawn.shape[1])]
    low, high = np.array(ends).T
    return low, high


def _bca_levels(kinds: Kinds, drawn: np.ndarray, tails: np.ndarray) -> Float[np.ndarray, "tail column"]:
    """Move the tails' levels by bias and acceleration (Efron 1987, equation 2.3)."""
    estimate = kinds.estimate
    resamples = len(drawn)
    # Of a statistic with few values, a draw equal to the estimate is half below it. Never quite none or all.
    below = (drawn < estimate).sum(axis=0) + 0.5 * (drawn == estimate).sum(axis=0)
    bias = norm.ppf(np.clip(below, 0.5, resamples - 0.5) / resamples)
    with np.errstate(invalid="ignore", divide="ignore"):
        left_out = (kinds.times @ kinds.sums - kinds.sums) / (kinds.times @ kinds.counts - kinds.counts)
        away = np.where(np.isfinite(left_out), kinds.times @ left_out / kinds.times.sum() - left_out, 0.0)
        acceleration = (kinds.times @ away**3) / (6 * (kinds.times @ away**2) ** 1.5)
    acceleration = np.where(np.isfinite(acceleration), acceleration, 0.0)
    moved = bias + norm.ppf(tails)[:, None]
    return norm.cdf(bias + moved / (1 - acceleration * moved))
