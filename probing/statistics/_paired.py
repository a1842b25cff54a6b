"""Paired differences over prompts: an interval that never collapses, and an exact test by sign flips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from scipy.optimize import brentq
from scipy.stats import norm
from scipy.stats import t as student

from probing.statistics._groups import CONFIDENCE, GroupSums, Interval, Values, difference_of, sums_by_group
from probing.statistics._means import mean_interval

_DENOMINATORS = (1, 2, 4, 6, 8, 10, 12, 20, 30, 40, 60, 120, 240)
"""Outcomes are multiples of 1/2, and of 1/(2·k) for means over k seeds or shuffles."""
_LARGEST_LATTICE = 2**16
_ZERO = 1e-12
_ROUNDING, _SMALLEST = 1e-10, 1e-300
"""P-value below which rounding of the transform matters, and the smallest that is returned."""


@dataclass(frozen=True)
class Difference(Interval):
    """A paired difference.

    Attributes:
        p_value: Two-sided p-value under no difference.
        smallest_p_value: The p-value if all groups that differ differed in the same direction: no test of these pairs
            can give less.
    """

    p_value: Values
    smallest_p_value: Values


def paired_difference(
    first: Float[np.ndarray, "pair *column"],
    second: Float[np.ndarray, "pair *column"],
    groups: Shaped[np.ndarray, " pair"],
    *,
    confidence: float = CONFIDENCE,
) -> Difference:
    """Estimate the mean of ``first − second`` on the same pairs, with an interval over groups and an exact p-value.

    The test flips the signs of the groups' sums: under no difference a group's sum is as likely as its negative (Fisher
    1935). With one pair a group it is McNemar's exact test. The interval is Student's for a ratio over groups after
    adding two groups that differ by half a typical difference in each direction, as Agresti and Min (2005) do for
    single pairs, so that it has a width where no group differs.

    Args:
        first: Outcomes, one row a pair; NaN is left out, column by column.
        second: Other outcomes of the same pairs.
        groups: Prompt of each pair.
        confidence: Confidence level of the interval.

    Raises:
        ValueError: They differ in shape, lengths differ, fewer than two groups, or a column without any value.
    """
    by_group, shape = sums_by_group(difference_of(first, second), groups)
    centre, error = centre_and_error(by_group)
    degrees = np.maximum((by_group.counts > 0).sum(axis=0) - 1, 1)
    half = student.ppf((1 + confidence) / 2, degrees) * error
    estimate = by_group.estimate
    low, high = np.minimum(centre - half, estimate), np.maximum(centre + half, estimate)
    estimate, low, high = (part.reshape(shape)[()] for part in (estimate, low, high))
    return Difference(estimate, low, high, *_sign_flips(by_group, shape))


def mean_change(
    first: Float[np.ndarray, "pair *column"],
    second: Float[np.ndarray, "pair *column"],
    groups: Shaped[np.ndarray, " pair"],
    *,
    confidence: float = CONFIDENCE,
) -> Difference:
    """Estimate the mean of ``first − second`` of values of any unit, such as scores.

    The test is that of :func:`paired_difference`. The interval is Student's over groups: outcomes have a unit, by which
    :func:`paired_difference` widens it, and scores have none.

    Args:
        first: Values, one row a pair.
        second: Other values of the same pairs.
        groups: Prompt of each pair.
        confidence: Confidence level of the interval.

    Raises:
        ValueError: As :func:`paired_difference`.
    """
    difference = difference_of(first, second)
    by_group, shape = sums_by_group(difference, groups)
    interval = mean_interval(difference, groups, confidence=confidence)
    return Difference(interval.estimate, interval.low, interval.high, *_sign_flips(by_group, shape))


def _sign_flips(by_group: GroupSums, shape: tuple[int, ...]) -> tuple[Values, Values]:
    """Return p-values and the smallest that these groups can give."""
    p_values = np.array([sign_flip_p_value(column) for column in by_group.sums.T])
    n_differ = (np.abs(by_group.sums) > _ZERO).sum(axis=0)
    smallest = np.maximum(0.5 ** np.maximum(n_differ - 1.0, 0.0), _SMALLEST)
    return p_values.reshape(shape)[()], smallest.reshape(shape)[()]


def centre_and_error(by_group: GroupSums) -> tuple[Float[np.ndarray, " column"], Float[np.ndarray, " column"]]:
    """Return the mean difference and its standard error over groups, after the two added groups.

    Each added group has the mean size. The square of its difference is the mean square of the groups that differ and
    of one whose pairs all differ; half of it counts in each direction.
    """
    sums, counts = by_group.sums, by_group.counts
    n_groups = (counts > 0).sum(axis=0)
    n_differ = (np.abs(sums) > _ZERO).sum(axis=0)
    size, full = counts.sum(axis=0) / n_groups, (counts**2).sum(axis=0) / n_groups
    added = ((sums**2).sum(axis=0) + full) / (n_differ + 1)
    total = counts.sum(axis=0) + 2 * size
    centre = sums.sum(axis=0) / total
    squares = ((sums - counts * centre) ** 2).sum(axis=0) + added + 2 * (size * centre) ** 2
    return centre, np.sqrt(squares * (n_groups + 2) / (n_groups + 1)) / total


def sign_flip_p_value(sums: Float[np.ndarray, " group"]) -> float:
    """Return the chance that |Σ ±s_g| is at least |Σ s_g| over all sign flips of the groups' sums.

    Exact, by the characteristic function Π cos(θ·s_g), where the sums are multiples of a common step; else by the
    saddlepoint approximation of Lugannani and Rice (Robinson 1982).
    """
    sizes = np.abs(sums)[np.abs(sums) > _ZERO]
    observed = abs(float(sums.sum()))
    if observed <= 1e-9 * max(1.0, float(sizes.sum())):
        return 1.0
    smallest = max(0.5 ** (len(sizes) - 1), _SMALLEST)
    if observed >= float(sizes.sum()) - 1e-9:
        return smallest
    steps = _lattice(sizes)
    p_value = _saddlepoint(sizes, observed) if steps is None else _exact(*steps, observed)
    if p_value < _ROUNDING:
        p_value = _saddlepoint(sizes, observed)
    return float(min(1.0, max(p_value, smallest)))


def _lattice(sizes: Float[np.ndarray, " group"]) -> tuple[np.ndarray, int] | None:
    """Return the sums in units of their common step, and the number of steps in 1; None without a small one."""
    for denominator in _DENOMINATORS:
        scaled = sizes * denominator
        whole = np.rint(scaled)
        if np.abs(scaled - whole).max() < 1e-6:
            return (whole, denominator) if whole.sum() <= _LARGEST_LATTICE else None
    return None


def _exact(sizes: np.ndarray, denominator: int, observed: float) -> float:
    distinct, times = np.unique(sizes.astype(int), return_counts=True)
    total, threshold = int(sizes.sum()), round(observed * denominator)
    # Sums ±s_g have the parity of their total: count the flips to the negative, which shortens the transform to half.
    length = total + 1
    angle = np.pi * np.arange(length) / length
    log_size, sign = np.zeros(length), np.ones(length)
    for size, count in zip(distinct, times, strict=True):
        cosine = np.cos(angle * size)
        with np.errstate(divide="ignore"):
            log_size += count * np.log(np.abs(cosine))
        sign *= np.where(cosine < 0, -1.0, 1.0) ** count
    # P(Σ ±s = total − 2j) is the transform of the characteristic function.
    characteristic = sign * np.exp(log_size) * np.exp(1j * angle * total)
    mass = np.maximum(np.fft.fft(characteristic).real / length, 0.0)
    return 2 * float(mass[: (total - threshold) // 2 + 1].sum())


def _saddlepoint(sizes: Float[np.ndarray, " group"], observed: float) -> float:
    def slope(t: float) -> float:
        return float(sizes @ np.tanh(t * sizes)) - observed

    upper = 1.0 / float(sizes.max())
    while slope(upper) < 0:
        upper *= 2
    t = float(brentq(slope, 0.0, upper, xtol=1e-12))
    log_cosh = np.logaddexp(t * sizes, -t * sizes) - np.log(2)
    w = np.sqrt(max(2 * (t * observed - float(log_cosh.sum())), 0.0))
    u = t * np.sqrt(float((sizes**2 / np.cosh(np.minimum(t * sizes, 300.0)) ** 2).sum()))
    if w < 1e-4 or u < 1e-4:
        return float(2 * norm.sf(observed / np.sqrt(float(sizes @ sizes))))
    return float(2 * (norm.sf(w) + norm.pdf(w) * (1 / u - 1 / w)))
