"""Cluster bootstrap over prompts: whole prompt groups are drawn again, never single pairs.

A resample gives each group a weight (how often it was drawn), so all resamples of all columns are one product
of a weight matrix with the groups' sums (Field and Welsh 2007, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

RESAMPLES = 2000
CONFIDENCE = 0.95
_WEIGHTS_AT_ONCE = 2**24


@dataclass(frozen=True)
class Interval:
    """An estimate with its percentile interval; arrays where several columns were given."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Difference(Interval):
    """A paired difference, its interval, and its two-sided p-value under no difference."""

    p_value: np.ndarray


def cluster_bootstrap(
    values: Float[np.ndarray, "pair ..."],
    groups: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Mean over pairs with a percentile interval over groups.

    Args:
        values: One row a pair; further columns are resampled alike. NaN is left out, column by column.
        groups: (pair,) the prompt of each; all pairs of a group are drawn together.
        resamples: How often to draw as many groups as there are, with replacement.
        confidence: Of the interval.
        seed: Of the draws: the same seed and groups give the same draws, so that columns can be compared.

    Raises:
        ValueError: Lengths differ, fewer than two groups, or a column without any value.
    """
    estimate, drawn = _resampled_means(values, groups, resamples, seed)
    low, high = _percentiles(drawn, confidence)
    return Interval(estimate, low, high)


def paired_difference(
    first: Float[np.ndarray, "pair ..."],
    second: Float[np.ndarray, "pair ..."],
    groups: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Difference:
    """Mean of ``first − second`` on the same pairs, with interval and p-value.

    The p-value is twice the smaller share of resampled differences on either side of zero, each counted with one
    more (Davison and Hinkley 1997, equation 4.11), so it is never zero.

    Raises:
        ValueError: As :func:`cluster_bootstrap`, or the two differ in shape.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"A paired difference needs the same pairs twice, got shapes {first.shape}, {second.shape}.")
    estimate, drawn = _resampled_means(first - second, groups, resamples, seed)
    low, high = _percentiles(drawn, confidence)
    below, above = ((drawn <= 0).sum(axis=0) + 1, (drawn >= 0).sum(axis=0) + 1)
    return Difference(estimate, low, high, np.minimum(1.0, 2 * np.minimum(below, above) / (resamples + 1)))


def _resampled_means(values, groups, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
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
    sums, counts = (np.zeros((clusters, columns.shape[1])) for _ in range(2))
    np.add.at(sums, code, np.where(there, columns, 0.0))
    np.add.at(counts, code, there.astype(float))
    rng = np.random.default_rng(seed)
    drawn = np.empty((resamples, columns.shape[1]))
    step = max(1, _WEIGHTS_AT_ONCE // clusters)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        weights = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=stop - start).astype(float)
        with np.errstate(invalid="ignore"):
            drawn[start:stop] = (weights @ sums) / (weights @ counts)
    shape = values.shape[1:]
    return (sums.sum(axis=0) / counts.sum(axis=0)).reshape(shape), drawn.reshape(resamples, *shape)


def _percentiles(drawn: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail], axis=0)
    return low, high
