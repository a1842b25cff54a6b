"""Shares with intervals that stay honest near 0 and 1, where a bootstrap of all right draws nothing but right."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

_Z = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """A share with its 95% interval; ``n`` values."""

    estimate: float
    low: float
    high: float
    n: int


def rate(values: Float[np.ndarray, " value"] | Bool[np.ndarray, " value"], groups: np.ndarray | None = None) -> Rate:
    """Share of true values with Wilson's interval (1927); values of one group count as dependent.

    With groups the interval is that of as many independent values as have the variance of the groups' sums (Korn and
    Graubard 1998), at most as many as there are, and at least as many as there are groups where no variance is seen.
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n == 0:
        raise ValueError("A share of no values is not defined; give at least one.")
    share = float(values.mean())
    effective = float(n)
    if groups is not None:
        _, group = np.unique(groups, return_inverse=True)
        sums = np.bincount(group, values - share)
        count = len(sums)
        variance = float((sums**2).sum()) / n**2 * count / max(count - 1, 1)
        effective = min(n, share * (1 - share) / variance) if variance > 0 else float(count)
    shrink = 1 + _Z**2 / effective
    middle = (share + _Z**2 / (2 * effective)) / shrink
    half = _Z * math.sqrt(share * (1 - share) / effective + _Z**2 / (4 * effective**2)) / shrink
    # Rounding must not leave a share of 0 or 1 outside its own interval.
    return Rate(share, min(max(0.0, middle - half), share), max(min(1.0, middle + half), share), n)
