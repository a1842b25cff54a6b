"""How many prompts it takes to tell two blocks apart."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from probing.statistics.bootstrap import difference_of, sums_by_group


def variance_of_difference(
    first: Float[np.ndarray, " pair"], second: Float[np.ndarray, " pair"], groups: np.ndarray
) -> tuple[float, float]:
    """Measure, in a pilot, the variance that one prompt adds to a paired difference, and its pairs.

    Returns:
        G · Var(mean difference), which does not depend on the number of prompts G (the mean over pairs is linearised as
        a ratio; Cochran 1977, section 6.4), and the mean number of pairs a prompt.

    Raises:
        ValueError: As :func:`probing.statistics.paired_difference`.
    """
    by_group, _ = sums_by_group(difference_of(first, second), groups)
    pairs = float(by_group.counts.mean())
    residual = (by_group.sums - by_group.counts * by_group.estimate)[:, 0] / pairs
    return float(residual @ residual / (len(residual) - 1)), pairs


def prompts_needed(delta: float, variance: float, *, power: float = 0.8, level: float = 0.05) -> int:
    """How many prompts tell a difference ``delta`` from none with the given power, two-sided.

    Args:
        delta: True difference of accuracies, for instance 0.01 for a point.
        variance: Of one prompt, by :func:`variance_of_difference`.
        power: Chance of finding it.
        level: Of the test.

    Raises:
        ValueError: A difference of 0, or numbers outside their ranges.
    """
    _check(delta, variance, level)
    if not 0 < power < 1:
        raise ValueError(f"power lies between 0 and 1, got {power}.")
    reach = norm.ppf(1 - level / 2) + norm.ppf(power)
    return max(2, math.ceil(reach**2 * variance / delta**2))


def power_of(prompts: int, delta: float, variance: float, *, level: float = 0.05) -> float:
    """Chance that a difference ``delta`` is found with so many prompts; see :func:`prompts_needed`.

    Raises:
        ValueError: As there.
    """
    _check(delta, variance, level)
    if variance == 0:
        return 1.0
    shift, edge = abs(delta) * math.sqrt(prompts / variance), norm.ppf(1 - level / 2)
    return float(norm.sf(edge - shift) + norm.cdf(-edge - shift))


def pairs_needed(delta: float, disagreement: float, *, power: float = 0.8, level: float = 0.05) -> int:
    """How many pairs of different prompts it takes when two probes answer a share of them differently.

    McNemar's test, by Miettinen's formula (1968, also Connor 1987): for planning, before there is a pilot.

    Args:
        delta: True difference of accuracies.
        disagreement: Share of pairs on which exactly one probe is right, at least ``delta``.
        power: Chance of finding it.
        level: Of the test.

    Raises:
        ValueError: Numbers outside their ranges.
    """
    _check(delta, disagreement, level)
    if not abs(delta) <= disagreement <= 1:
        raise ValueError(f"disagreement lies between the difference {delta} and 1, got {disagreement}.")
    reach = norm.ppf(1 - level / 2) * math.sqrt(disagreement)
    reach += norm.ppf(power) * math.sqrt(disagreement - delta**2)
    return max(2, math.ceil(reach**2 / delta**2))


def _check(delta: float, variance: float, level: float) -> None:
    if delta == 0:
        raise ValueError("No number of prompts tells no difference from none; give a delta other than 0.")
    if variance < 0 or not 0 < level < 1:
        raise ValueError(f"Variance is at least 0 and level between 0 and 1, got {variance} and {level}.")
