"""Cluster bootstrap over prompts: resamples draw whole prompt groups, never single pairs.

A resample gives each group a weight, the number of times it is drawn, so all resamples of all columns are one product
of a weight matrix with the groups' sums (Field and Welsh 2007, section 3). Groups with equal sums and counts are
interchangeable, and outcomes of 0 and 1 give few distinct ones: drawing the number of times that each distinct group
occurs has the same distribution and is much faster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Shaped

RESAMPLES = 2000
CONFIDENCE = 0.95
_WEIGHTS_AT_ONCE = 2**24

if TYPE_CHECKING:
    # A scalar of NumPy has the methods of an array without axes.
    Values = np.ndarray
else:
    Values = Float[np.ndarray, "*column"] | np.float64


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval; arrays where several columns were given."""

    estimate: Values
    low: Values
    high: Values


@dataclass(frozen=True)
class Difference(Interval):
    """A paired difference, its interval, and its two-sided p-value under no difference."""

    p_value: Values


@dataclass(frozen=True)
class GroupSums:
    """Sum and number of values of each group, by column."""

    sums: Float[np.ndarray, "group column"]
    counts: Float[np.ndarray, "group column"]

    @property
    def estimate(self) -> Float[np.ndarray, " column"]:
        """Mean over pairs."""
        mean: Float[np.ndarray, " column"] = self.sums.sum(axis=0) / self.counts.sum(axis=0)
        return mean


def cluster_bootstrap(
    values: Float[np.ndarray, "pair *column"],
    groups: Shaped[np.ndarray, " pair"],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Estimate the mean over pairs, with a percentile interval over groups.

    Args:
        values: One row per pair. A column's interval does not depend on the other columns. NaN is left out, column by
            column.
        groups: Prompt of each pair; all pairs of a group are drawn together.
        resamples: Number of resamples; each draws as many groups as there are, with replacement.
        confidence: Confidence level of the interval.
        seed: Seed of the resamples.

    Raises:
        ValueError: Lengths differ, fewer than two groups, or a column without any value.
    """
    by_group, shape = sums_by_group(values, groups)
    low, high = _percentiles(resampled_means(by_group, resamples, seed), confidence)
    return Interval(*(part.reshape(shape)[()] for part in (by_group.estimate, low, high)))


def paired_difference(
    first: Float[np.ndarray, "pair *column"],
    second: Float[np.ndarray, "pair *column"],
    groups: Shaped[np.ndarray, " pair"],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Difference:
    """Estimate the mean of ``first − second`` on the same pairs, with interval and p-value.

    The p-value is twice the smaller share of resampled differences on either side of zero, with one added to each count
    (Davison and Hinkley 1997, equation 4.11), so it is never zero.

    Raises:
        ValueError: As :func:`cluster_bootstrap`, or the two differ in shape.
    """
    by_group, shape = sums_by_group(difference_of(first, second), groups)
    drawn = resampled_means(by_group, resamples, seed)
    low, high = _percentiles(drawn, confidence)
    below, above = ((drawn <= 0).sum(axis=0) + 1, (drawn >= 0).sum(axis=0) + 1)
    p_value = np.minimum(1.0, 2 * np.minimum(below, above) / (resamples + 1))
    return Difference(*(part.reshape(shape)[()] for part in (by_group.estimate, low, high, p_value)))


def difference_of(
    first: Float[np.ndarray, "pair *column"], second: Float[np.ndarray, "pair *column"]
) -> Float[np.ndarray, "pair *column"]:
    """Subtract outcomes on the same pairs.

    Raises:
        ValueError: They differ in shape.
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"A paired difference needs the same pairs twice, got shapes {first.shape}, {second.shape}.")
    difference: Float[np.ndarray, "pair *column"] = first - second
    return difference


def sums_by_group(
    values: Float[np.ndarray, "pair *column"], groups: Shaped[np.ndarray, " pair"]
) -> tuple[GroupSums, tuple[int, ...]]:
    """Sum values by group, with all columns side by side; also return the shape of one row of ``values``.

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
    untied = ~np.isnan(columns)
    if not untied.any(axis=0).all():
        raise ValueError("A column has no untied pair to estimate a mean from; leave it out.")
    sums, counts = (
        np.stack([np.bincount(code, column, clusters) for column in table.T], axis=1)
        for table in (np.where(untied, columns, 0.0), untied.astype(float))
    )
    return GroupSums(sums, counts), values.shape[1:]


def resampled_means(
    by_group: GroupSums, resamples: int, seed: int, *, joint: bool = False
) -> Float[np.ndarray, "resample column"]:
    """Draw as many groups as there are, with replacement, and return the mean over pairs of each resample.

    Args:
        by_group: Groups to draw.
        resamples: Number of resamples.
        seed: Seed of the resamples. A column's draws do not depend on the other columns.
        joint: Whether a row is the same draw of groups in every column, as statements about several columns need.
    """
    groups, columns = by_group.sums.shape
    drawn = np.empty((resamples, columns))
    rest = list(range(columns))
    if not joint:
        rest = []
        for column in range(columns):
            sums, counts = by_group.sums[:, column], by_group.counts[:, column]
            sign = _orientation(sums)
            distinct, times = np.unique(sign * sums + 1j * counts, return_counts=True)
            if len(distinct) > groups // 2:
                rest.append(column)
                continue
            weights = np.random.default_rng(seed).multinomial(groups, times / groups, size=resamples)
            with np.errstate(invalid="ignore"):
                drawn[:, column] = sign * (weights @ distinct.real) / (weights @ distinct.imag)
    if rest:
        rng = np.random.default_rng(seed)
        sums, counts = by_group.sums[:, rest], by_group.counts[:, rest]
        step = max(1, _WEIGHTS_AT_ONCE // groups)
        for start in range(0, resamples, step):
            stop = min(start + step, resamples)
            # With nearly as many distinct groups as groups, counting draws is faster than a multinomial.
            rows = rng.integers(groups, size=(stop - start, groups), dtype=np.int32)
            weights = np.stack([np.bincount(row, minlength=groups) for row in rows]).astype(float)
            with np.errstate(invalid="ignore"):
                drawn[start:stop, rest] = (weights @ sums) / (weights @ counts)
    return drawn


def _orientation(sums: Float[np.ndarray, " group"]) -> float:
    """Return the sign that maps a column and its negative to the same sums, so that b − a mirrors a − b exactly."""
    ordered = np.sort(sums)
    asymmetry = ordered + ordered[::-1]
    return -1.0 if (asymmetry[asymmetry != 0.0][:1] < 0).any() else 1.0


def _percentiles(
    drawn: Float[np.ndarray, "resample column"], confidence: float
) -> tuple[Float[np.ndarray, " column"], Float[np.ndarray, " column"]]:
    low, high = np.nanquantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high
