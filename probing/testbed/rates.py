"""Shares with Wilson's interval, which stays valid near 0 and 1, where a bootstrap collapses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

_Z = 1.959963984540054


@dataclass(frozen=True)
class Rate:
    """A share of ``n`` values with its 95% interval."""

    estimate: float
    low: float
    high: float
    n: int


def rate(values: Float[np.ndarray, " value"] | Bool[np.ndarray, " value"], groups: np.ndarray | None = None) -> Rate:
    """Compute the share of true values with Wilson's interval (1927); values of one group may be dependent.

    With groups the interval is that of the effective number of independent values, from the variance of the groups'
    sums (Korn and Graubard 1998): at most the number of values, and the number of groups if the variance is zero.

    Raises:
        ValueError: There are no values.
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n == 0:
        raise ValueError("A share of no values is not defined; give at least one value.")
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
    # Rounding must not put a share of 0 or 1 outside its interval.
    return Rate(share, min(max(0.0, middle - half), share), max(min(1.0, middle + half), share), n)


def format_interval(row: Mapping[Any, Any], digits: int = 1, unit: str = "") -> str:
    """Format the accuracy of a row with its interval, in percent: ``81.9 [79.6, 84.2]``."""
    value, low, high = (f"{100 * row[key]:.{digits}f}{unit}" for key in ("accuracy", "ci_low", "ci_high"))
    return f"{value} [{low}, {high}]"
