"""Accuracy with an interval that holds near 0 and 1 and with few prompts."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped
from scipy.stats import t as student

from probing.statistics._groups import CONFIDENCE, Interval, sums_by_group

_PRIOR_PROMPTS = 3
"""Prompts with a wrong (or right) pair from which on the measured dependence within prompts counts most."""


def share_interval(
    values: Float[np.ndarray, "pair *column"], groups: Shaped[np.ndarray, " pair"], *, confidence: float = CONFIDENCE
) -> Interval:
    """Estimate the mean over pairs of values in [0, 1], such as outcomes, with an interval over groups.

    Wilson's score interval (1927) at the effective number of pairs n·v / (n²·V), where v is the variance of the values
    and V the variance of their mean over groups, linearised as a ratio (Korn and Graubard 1998), with Student's
    quantile of G − 1 degrees for G groups (Dean and Pagano 2015). V is measured badly where few groups hold a
    wrong pair, or few a right one: with D of them, a weight of (3 / (D + 3))³ goes to full dependence within groups.

    Args:
        values: One row per pair: 1 right, 0 wrong, and values between. NaN is left out, column by column.
        groups: Prompt of each pair.
        confidence: Confidence level of the interval.

    Raises:
        ValueError: A value outside [0, 1], lengths differ, fewer than two groups, or a column without any value.
    """
    values = np.asarray(values, dtype=float)
    if np.nanmin(values, initial=0.0) < 0 or np.nanmax(values, initial=1.0) > 1:
        raise ValueError("Outcomes lie in [0, 1]; got one outside.")
    by_group, shape = sums_by_group(values, groups)
    present = by_group.counts > 0
    n, n_groups = by_group.counts.sum(axis=0), present.sum(axis=0)
    share = by_group.estimate
    spread = np.maximum(by_group.squares.sum(axis=0) / n - share**2, 0.0)
    residuals = by_group.sums - by_group.counts * share
    with np.errstate(invalid="ignore", divide="ignore"):
        over_groups = (residuals**2).sum(axis=0) / n**2 * n_groups / (n_groups - 1)
        full = (by_group.counts**2).sum(axis=0) / n
        dependence = np.where(spread > 0, over_groups / (spread / n), full)
        wrong, right = by_group.counts - by_group.sums, by_group.sums
        informative = np.minimum((wrong > 0).sum(axis=0), (right > 0).sum(axis=0))
        weight = (_PRIOR_PROMPTS / (informative + _PRIOR_PROMPTS)) ** 3
        dependence = dependence + weight * np.maximum(full - dependence, 0.0)
        # Values between 0 and 1 vary less than outcomes of the same mean.
        binary = share * (1 - share)
        ratio = np.where(spread > 0, binary / np.where(spread > 0, spread, 1.0), 1.0)
        effective = np.maximum(n * ratio / dependence, 1.0)
        z = student.ppf((1 + confidence) / 2, np.maximum(n_groups - 1, 1))
    shrink = 1 + z**2 / effective
    middle = (share + z**2 / (2 * effective)) / shrink
    half = z * np.sqrt(binary / effective + z**2 / (4 * effective**2)) / shrink
    # Rounding must not put a share of 0 or 1 outside its interval.
    low, high = np.minimum(np.maximum(middle - half, 0.0), share), np.maximum(np.minimum(middle + half, 1.0), share)
    return Interval(*(part.reshape(shape)[()] for part in (share, low, high)))
