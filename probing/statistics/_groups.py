"""Sums of pairs by prompt, and intervals: what every method on grouped pairs starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Shaped

CONFIDENCE = 0.95

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
class GroupSums:
    """Sum, sum of squares and number of values of each group, by column."""

    sums: Float[np.ndarray, "group column"]
    squares: Float[np.ndarray, "group column"]
    counts: Float[np.ndarray, "group column"]

    @property
    def estimate(self) -> Float[np.ndarray, " column"]:
        """Mean over pairs."""
        mean: Float[np.ndarray, " column"] = self.sums.sum(axis=0) / self.counts.sum(axis=0)
        return mean


def sums_by_group(
    values: Float[np.ndarray, "pair *column"], groups: Shaped[np.ndarray, " pair"]
) -> tuple[GroupSums, tuple[int, ...]]:
    """Sum values by group, with all columns side by side; also return the shape of one row of ``values``.

    NaN is left out, column by column.

    Raises:
        ValueError: Lengths differ, fewer than two groups, or a column without any value.
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
    filled = np.where(untied, columns, 0.0)
    sums, squares, counts = (
        np.stack([np.bincount(code, column, clusters) for column in table.T], axis=1)
        for table in (filled, filled**2, untied.astype(float))
    )
    return GroupSums(sums, squares, counts), values.shape[1:]


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
