"""From margins and choices to right and wrong."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

TIE_RULES = {"half": 0.5, "wrong": 0.0}
"""What a predicted tie counts."""


def outcomes(
    margins: Float[np.ndarray, " pair"], choices: Float[np.ndarray, " pair"], *, tie_rule: str = "half"
) -> Float[np.ndarray, " pair"]:
    """Score each pair: 1 where the margin agrees with the choice, 0 where it does not.

    Their mean is the micro accuracy over untied pairs.

    Args:
        margins: reward(first) − reward(second).
        choices: 1 the first was chosen, 0 the second, 0.5 a tie.
        tie_rule: What a margin of exactly 0 counts, of :data:`TIE_RULES`.

    Returns:
        One value a pair; NaN where people were tied, so that such a pair counts nowhere.

    Raises:
        ValueError: Different lengths, margins that are not finite, an unknown rule.
    """
    margins, choices = np.asarray(margins, dtype=float), np.asarray(choices, dtype=float)
    if margins.shape != choices.shape:
        raise ValueError(f"Each pair has one margin and one choice, got shapes {margins.shape} and {choices.shape}.")
    if not np.isfinite(margins).all():
        raise ValueError("Margins must be finite; look for NaN among the features.")
    if tie_rule not in TIE_RULES:
        raise ValueError(f"Unknown tie rule {tie_rule!r}; known are {', '.join(TIE_RULES)}.")
    agrees = np.sign(margins) == np.sign(choices - 0.5)
    scored = np.where(margins == 0, TIE_RULES[tie_rule], agrees.astype(float))
    return np.where(choices == 0.5, np.nan, scored)
