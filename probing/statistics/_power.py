"""Plan the number of prompts that a comparison of two probes needs."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Shaped
from scipy.stats import norm

from probing.statistics._groups import difference_of, sums_by_group
from probing.statistics._paired import centre_and_error


def variance_of_difference(
    first: Float[np.ndarray, " pair"], second: Float[np.ndarray, " pair"], groups: Shaped[np.ndarray, " pair"]
) -> tuple[float, float]:
    """Measure, in a pilot, the variance of a paired difference per prompt, and the mean number of pairs per prompt.

    Returns:
        G · Var(mean difference), which does not depend on the number of prompts G, from the standard error of
        :func:`probing.statistics.paired_difference`, so it is above 0 where no pair differs; and the mean number of
        pairs per prompt.

    Raises:
        ValueError: As :func:`probing.statistics.paired_difference`.
    """
    by_group, _ = sums_by_group(difference_of(first, second), groups)
    _, error = centre_and_error(by_group)
    present = by_group.counts[by_group.counts > 0]
    return float(error[0] ** 2 * len(present)), float(present.mean())


def prompts_needed(
    delta: float, variance: float, pairs: float = 1.0, *, power: float = 0.8, level: float = 0.05
) -> int:
    """Return the number of prompts at which a two-sided test detects a difference ``delta`` with the given power.

    Args:
        delta: True difference of accuracies, for instance 0.01 for one percentage point.
        variance: Per prompt, by :func:`variance_of_difference`.
        pairs: Pairs a prompt. One pair is the step in which a difference moves, which the exact test waits for: the
            number is corrected for it (Fleiss, Tytun and Ury 1980).
        power: Chance that the test detects the difference.
        level: Significance level of the test.

    Raises:
        ValueError: A difference of 0, or numbers outside their ranges.
    """
    if delta == 0:
        raise ValueError("A test cannot detect a difference of 0; give a delta other than 0.")
    if variance < 0 or not 0 < level < 1:
        raise ValueError(f"Variance is at least 0 and level between 0 and 1, got {variance} and {level}.")
    if not 0 < power < 1:
        raise ValueError(f"power lies between 0 and 1, got {power}.")
    reach = float(norm.ppf(1 - level / 2) + norm.ppf(power))
    prompts = reach**2 * variance / delta**2
    if prompts > 0:
        prompts *= (1 + math.sqrt(1 + 4 / (prompts * pairs * abs(delta)))) ** 2 / 4
    return max(2, math.ceil(prompts))
