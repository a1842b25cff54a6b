"""Test that two probes are equally accurate within a margin; a large p-value of a difference does not show that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from probing.statistics._bootstrap import RESAMPLES, difference_of, resampled_means, sums_by_group


@dataclass(frozen=True)
class Equivalence:
    """A paired difference with the interval and the p-value of two one-sided tests.

    ``low`` and ``high`` bound a 1 − 2·level interval: when it lies inside ±margin, the probes are equivalent within the
    margin at the level.
    """

    estimate: float
    low: float
    high: float
    p_value: float
    equivalent: bool


def equivalence(
    first: Float[np.ndarray, " pair"],
    second: Float[np.ndarray, " pair"],
    groups: Shaped[np.ndarray, " pair"],
    *,
    margin: float,
    level: float = 0.05,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Equivalence:
    """Test that the mean of ``first − second`` lies within ±margin, by two one-sided bootstrap tests over groups.

    The p-value is the larger one of the two tests (Schuirmann 1987): the share of resampled differences beyond the
    nearer margin, with one added to the count.

    Args:
        first: Outcomes of one probe; NaN is left out.
        second: Outcomes of another on the same pairs.
        groups: Prompt of each pair.
        margin: Largest difference that does not matter, above 0; 0.01 is one percentage point of accuracy.
        level: Significance level of the test.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Raises:
        ValueError: A margin that is not above 0, or as :func:`probing.statistics.paired_difference`.
    """
    if not margin > 0:
        raise ValueError(f"The margin is above 0, got {margin}; 0.01 is one percentage point of accuracy.")
    by_group, _ = sums_by_group(difference_of(first, second), groups)
    drawn = resampled_means(by_group, resamples, seed)[:, 0]
    below, above = (drawn <= -margin).sum(), (drawn >= margin).sum()
    p_value = float((max(below, above) + 1) / (resamples + 1))
    low, high = np.nanquantile(drawn, [level, 1 - level])
    return Equivalence(float(by_group.estimate[0]), float(low), float(high), p_value, p_value <= level)
