"""Outcomes of pairs: right or wrong, from margins and choices."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

TIE_RULES = {"half": 0.5, "wrong": 0.0}
"""Outcome of a predicted tie, by the name of the rule."""


def outcomes(
    margins: Float[np.ndarray, " pair"], choices: Float[np.ndarray, " pair"], *, tie_rule: str = "half"
) -> Float[np.ndarray, " pair"]:
    """Score each pair: 1 where the margin agrees with the choice, 0 where it does not.

    Their mean is the micro accuracy over untied pairs.

    Args:
        margins: reward(first) − reward(second).
        choices: 1 for the first, 0 for the second, 0.5 for a tie.
        tie_rule: Name in :data:`TIE_RULES`: the outcome of a margin of exactly 0.

    Returns:
        One value per pair; NaN where the choice is a tie.

    Raises:
        ValueError: Different lengths, margins that are not finite, an unknown rule.
    """
    margins, choices = check_margins(margins, choices)
    if tie_rule not in TIE_RULES:
        raise ValueError(f"Unknown tie rule {tie_rule!r}; known are {', '.join(TIE_RULES)}.")
    agrees = np.sign(margins) == np.sign(choices - 0.5)
    scored = np.where(margins == 0, TIE_RULES[tie_rule], agrees.astype(float))
    return np.where(choices == 0.5, np.nan, scored)


def check_margins(
    margins: Float[np.ndarray, " pair"], choices: Float[np.ndarray, " pair"]
) -> tuple[Float[np.ndarray, " pair"], Float[np.ndarray, " pair"]]:
    """Return margins and choices as arrays of float64.

    Raises:
        ValueError: Different lengths, or margins that are not finite.
    """
    margins, choices = np.asarray(margins, dtype=float), np.asarray(choices, dtype=float)
    if margins.shape != choices.shape:
        raise ValueError(f"Each pair has one margin and one choice, got shapes {margins.shape} and {choices.shape}.")
    if not np.isfinite(margins).all():
        raise ValueError("Margins must be finite; look for NaN among the features.")
    return margins, choices
