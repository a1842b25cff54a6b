"""Products with a design that is in memory or on disk; on disk each takes one pass over its blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from probing.probes._disk import DiskRows
from probing.probes._solver._columns import Matrix, zeros


def times(x: Any, b: np.ndarray) -> Matrix:
    """Return x·b."""
    if not isinstance(x, DiskRows):
        product: np.ndarray = x @ b
        return product
    whole: Matrix = zeros(x, b.shape[1], np.result_type(x.dtype, b.dtype))
    for rows in x.blocks():
        whole[rows] = x[rows] @ b
    return whole


def curvature_times(x: Any, curvature: Matrix, b: np.ndarray) -> np.ndarray:
    """Return x'·(curvature · (x·b)), the product of a loss's second derivative with directions."""
    if not isinstance(x, DiskRows):
        product: np.ndarray = x.T @ (curvature * (x @ b))
        return product
    total = np.zeros(b.shape, dtype=np.result_type(x.dtype, b.dtype))
    for rows in x.blocks():
        block = x[rows]
        total += block.T @ (curvature[rows] * (block @ b))
    return total


def gram(x: Any) -> np.ndarray:
    """Return x'·x / rows, in single precision."""
    pairs = np.float32(len(x))
    if not isinstance(x, DiskRows):
        product: np.ndarray = x.T @ x / pairs
        return product
    total = np.zeros((x.shape[1], x.shape[1]))
    for rows in x.blocks():
        block = x[rows]
        total += block.T @ block
    total /= pairs
    return total.astype(np.float32)
