"""Means of unbounded values, such as bits or similarities, with an interval over prompts."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped
from scipy.stats import t as student

from probing.statistics._groups import CONFIDENCE, Interval, sums_by_group


def mean_interval(
    values: Float[np.ndarray, "pair *column"], groups: Shaped[np.ndarray, " pair"], *, confidence: float = CONFIDENCE
) -> Interval:
    """Estimate the mean over pairs with Student's interval over groups, linearised as a ratio (Cochran 1977, 6.4).

    Args:
        values: One row per pair; NaN is left out, column by column. Outcomes in [0, 1] have
            :func:`probing.statistics.share_interval`.
        groups: Prompt of each pair.
        confidence: Confidence level of the interval.

    Raises:
        ValueError: Lengths differ, fewer than two groups, or a column without any value.
    """
    by_group, shape = sums_by_group(values, groups)
    n_groups = (by_group.counts > 0).sum(axis=0)
    mean = by_group.estimate
    squares = ((by_group.sums - by_group.counts * mean) ** 2).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(squares * n_groups / (n_groups - 1)) / by_group.counts.sum(axis=0)
    half = student.ppf((1 + confidence) / 2, np.maximum(n_groups - 1, 1)) * error
    return Interval(*(part.reshape(shape)[()] for part in (mean, mean - half, mean + half)))
