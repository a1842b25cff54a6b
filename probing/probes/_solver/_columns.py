"""Matrices of one row a pair and one column a fit: arrays, or on disk beside a design that is on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from probing.probes._disk import DiskMatrix, DiskRows
from probing.probes._solver._device_rows import DeviceRows

Chosen = Bool[np.ndarray, " column"] | Int[np.ndarray, " some"]
"""Columns, by a mask or by their numbers."""


@dataclass(frozen=True)
class LazyWeights:
    """Weights of pairs in columns, computed when a slice of rows is read, so that none of them stay in memory.

    Attributes:
        compute: Return the weights of a slice of rows in all columns, (row, column).
        rows: Number of rows.
        columns: Numbers of the columns that are read.
        dtype: Type of the weights that are returned.
    """

    compute: Callable[[slice], Float[np.ndarray, "row column"]]
    rows: int
    columns: Int[np.ndarray, " some"]
    dtype: Any = np.float64

    def __len__(self) -> int:
        return self.rows

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, len(self.columns)

    def __getitem__(self, rows: slice) -> Float[np.ndarray, "row some"]:
        start, stop, _ = rows.indices(self.rows)
        return self.compute(slice(start, stop))[:, self.columns].astype(self.dtype, copy=False)

    def astype(self, dtype: Any) -> LazyWeights:
        """Return the same weights as another type."""
        return replace(self, dtype=dtype)

    def select(self, chosen: Chosen) -> LazyWeights:
        """Return some columns."""
        return replace(self, columns=self.columns[chosen])


Matrix = Float[np.ndarray, "pair column"] | DiskMatrix
"""Numbers that the solver fills, read and written by slices of rows."""
Weights = Float[np.ndarray, "pair column"] | LazyWeights
"""Weights of pairs in columns, read by slices of rows."""


def zeros(x: Float[np.ndarray, "pair k"] | DeviceRows | DiskRows, columns: int, dtype: Any) -> Matrix:
    """Return a matrix of zeros, a row for each row of ``x``: in memory, or on disk where ``x`` is."""
    if isinstance(x, DiskRows):
        return DiskMatrix((len(x), columns), dtype, x.folder)
    return np.zeros((len(x), columns), dtype=dtype)


def select(values: Matrix | LazyWeights, chosen: Chosen) -> Any:
    """Return some columns."""
    return np.ascontiguousarray(values[:, chosen]) if isinstance(values, np.ndarray) else values.select(chosen)
