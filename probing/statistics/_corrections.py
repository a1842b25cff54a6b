"""Correct p-values for many tests."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

LEVEL = 0.05
"""Significance level of every test in the project."""


def holm(p_values: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Adjust p-values so that the chance of any false rejection in the family stays below the level (Holm 1979).

    Raises:
        ValueError: A p-value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=float)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values lie in [0, 1]; got one outside.")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted
