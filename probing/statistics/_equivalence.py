"""Test that two probes are equally accurate within a margin; a large p-value of a difference does not show that."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Shaped

from probing.statistics._corrections import LEVEL
from probing.statistics._paired import paired_difference


def equivalent(
    first: Float[np.ndarray, "pair *column"],
    second: Float[np.ndarray, "pair *column"],
    groups: Shaped[np.ndarray, " pair"],
    *,
    margin: float,
    level: float = LEVEL,
) -> Bool[np.ndarray, "*column"] | np.bool_:
    """Test that the mean of ``first − second`` lies within ±margin, by two one-sided tests (Schuirmann 1987).

    Both reject at the level when the 1 − 2·level interval of the difference lies inside ±margin.

    Args:
        first: Outcomes of one probe; NaN is left out.
        second: Outcomes of another on the same pairs.
        groups: Prompt of each pair.
        margin: Largest difference that does not matter, above 0; 0.01 is one percentage point of accuracy.
        level: Significance level of the test.

    Raises:
        ValueError: A margin that is not above 0, or as :func:`probing.statistics.paired_difference`.
    """
    if not margin > 0:
        raise ValueError(f"The margin is above 0, got {margin}; 0.01 is one percentage point of accuracy.")
    interval = paired_difference(first, second, groups, confidence=1 - 2 * level)
    return (interval.low > -margin) & (interval.high < margin)
