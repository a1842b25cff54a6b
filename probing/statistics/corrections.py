"""Corrections for asking many questions at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

LEVEL = 0.05
"""Of every test in the project."""


def holm(p_values: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Adjust p-values so that the chance of any false finding in the family stays below the level (Holm 1979).

    Raises:
        ValueError: A p-value outside [0, 1].
    """
    p, order = _ordered(p_values)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return _in_place(stepped, order)


def benjamini_hochberg(p_values: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Adjust p-values so that of all findings at most the level are expected to be false (Benjamini, Hochberg 1995).

    It holds for independent tests and for those that are positively dependent, as of neighbouring blocks.

    Raises:
        ValueError: A p-value outside [0, 1].
    """
    p, order = _ordered(p_values)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    return _in_place(np.minimum.accumulate(scaled[::-1])[::-1], order)


def _ordered(p_values: Float[np.ndarray, " test"]) -> tuple[np.ndarray, np.ndarray]:
    p = np.asarray(p_values, dtype=float)
    if p.size and not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values lie in [0, 1]; got one outside.")
    return p, np.argsort(p, kind="stable")


def _in_place(stepped: np.ndarray, order: np.ndarray) -> np.ndarray:
    adjusted = np.empty_like(stepped)
    adjusted[order] = np.minimum(1.0, stepped)
    return adjusted
