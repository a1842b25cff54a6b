"""Matrices of one row a pair and one column a fit: arrays, or on disk beside a design that is on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from probing.probes._disk import DiskMatrix, DiskRows


@dataclass(frozen=True)
class LazyWeights:
    """Weights of pairs in columns, computed when a slice of rows is read, so that none of them stay in memory.

    Attributes:
        compute: Return the weights of a slice of rows, (row, column).
        shape: Rows and columns.
        dtype: Type of the weights that are returned.
    """

    compute: Callable[[slice], Float[np.ndarray, "row column"]]
    shape: tuple[int, int]
    dtype: Any = np.float64

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Float[np.ndarray, "row column"]:
        return self.compute(rows).astype(self.dtype, copy=False)

    def astype(self, dtype: Any) -> LazyWeights:
        """Return the same weights as another type."""
        return replace(self, dtype=dtype)

    def columns(self, columns: Any) -> LazyWeights:
        """Return some columns, given by numbers or by a mask."""
        count = len(np.arange(self.shape[1])[columns])
        return LazyWeights(lambda rows: self.compute(rows)[:, columns], (self.shape[0], count), self.dtype)


Matrix = np.ndarray | DiskMatrix
"""Numbers that the solver fills, read and written by slices of rows."""
Weights = np.ndarray | LazyWeights
"""Weights of pairs in columns, read by slices of rows."""


def zeros(x: Any, columns: int, dtype: Any) -> Matrix:
    """Return a matrix of zeros, a row for each row of ``x``: in memory, or on disk where ``x`` is."""
    if isinstance(x, DiskRows):
        return DiskMatrix((len(x), columns), dtype, x.folder)
    return np.zeros((len(x), columns), dtype=dtype)


def select(values: Matrix | LazyWeights, columns: Any) -> Any:
    """Return some columns, given by numbers or by a mask."""
    if isinstance(values, np.ndarray):
        return np.ascontiguousarray(values[:, columns])
    return values.columns(columns)
