"""Features on disk, read a block of rows at a time, for fits whose differences do not fit into memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float, Int, Shaped

from probing.files import sentences_for_disk_errors

_BLOCK_BYTES = 2**24


class DiskRows:
    """Rows of float32 numbers in a temporary file, which the system removes with the process.

    Blocks are read, not mapped, so that they count as memory only while they are used. It has what the solver uses of
    an array: length, shape, type and slices of rows.

    Args:
        file: The rows, in C order.
        rows: Number of rows.
        inner: Shape of one row.
        scale: Divides each row; None divides by nothing.
        dtype: Type of the slices.
        repeats: How often the rows follow one another.
        folder: Where the file lies.
    """

    def __init__(
        self,
        file: BinaryIO,
        rows: int,
        inner: tuple[int, ...],
        *,
        scale: Float[np.ndarray, " channel"] | None = None,
        dtype: Any = np.float32,
        repeats: int = 1,
        folder: Path | None = None,
    ) -> None:
        self.folder = folder
        self._file, self._rows, self._inner = file, rows, inner
        self._scale, self.dtype, self._repeats = scale, np.dtype(dtype), repeats
        self._row_bytes = 4 * int(np.prod(inner))

    @classmethod
    def write(cls, blocks: Iterable[np.ndarray], folder: Path | None = None) -> DiskRows:
        """Write blocks of rows, one after another, to a temporary file.

        Args:
            blocks: (row, …), at least one.
            folder: Where the file lies, nameless; the system's folder of temporary files if None.

        Raises:
            UserError: The disk is full.
        """
        file = _temporary_file(folder)
        rows, inner, offset = 0, None, 0
        for block in blocks:
            values = np.ascontiguousarray(block, dtype=np.float32)
            inner, rows = values.shape[1:], rows + len(values)
            _write(file, values.tobytes(), offset, folder)
            offset += values.nbytes
        assert inner is not None, "at least one block"
        return cls(file, rows, inner, folder=folder)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self._inner)

    @property
    def ndim(self) -> int:
        return 1 + len(self._inner)

    def __len__(self) -> int:
        return self._rows * self._repeats

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, step = rows.indices(len(self))
        assert step == 1, "rows are read in order"
        pieces = []
        while start < stop:
            first = start % self._rows
            count = min(stop - start, self._rows - first)
            pieces.append(self._read(first, count))
            start += count
        values = pieces[0] if len(pieces) == 1 else np.concatenate([self._read(0, 0), *pieces])
        values = values.astype(self.dtype, copy=False)
        return values if self._scale is None else values / self._scale.astype(self.dtype)

    def take(self, rows: Int[np.ndarray, " row"]) -> Float[np.ndarray, "row ..."]:
        """Read single rows, as they are in the file; neighbours in one piece."""
        different, position = np.unique(rows, return_inverse=True)
        cuts = np.flatnonzero(np.diff(different) > 1) + 1
        pieces = [self._read(int(part[0]), len(part)) for part in np.split(different, cuts) if len(part)]
        return np.concatenate([self._read(0, 0), *pieces])[position]

    def blocks(self) -> Iterator[slice]:
        """Cut the rows into blocks of about 16 MiB."""
        return blocks_of(self, 0, len(self))

    def flat(self) -> DiskRows:
        """Return the same rows with tokens side by side."""
        return self._with(inner=(int(np.prod(self._inner)),))

    def as_type(self, dtype: Any) -> DiskRows:
        """Return the same rows, read as another type."""
        return self._with(dtype=dtype)

    def divided(self, scale: Float[np.ndarray, " channel"]) -> DiskRows:
        """Return the same rows, divided by channel."""
        return self._with(scale=scale)

    def repeated(self, times: int) -> DiskRows:
        """Return the same rows several times, one after another."""
        return self._with(repeats=times)

    def _with(self, **changes: Any) -> DiskRows:
        kept = {"folder": self.folder, "scale": self._scale, "dtype": self.dtype, "repeats": self._repeats}
        inner = changes.pop("inner", self._inner)
        return DiskRows(self._file, self._rows, inner, **{**kept, **changes})

    def _read(self, first: int, count: int) -> Float[np.ndarray, "row ..."]:
        data = _read(self._file, count * self._row_bytes, first * self._row_bytes)
        return np.frombuffer(data, np.float32).reshape(count, *self._inner)


class DiskMatrix:
    """A matrix of zeros to fill, in a temporary file: values of a fit by pair and column.

    Slices of rows are read and written; ``matrix[rows] += values`` does both.

    Args:
        shape: Rows and columns.
        dtype: Type of the numbers.
        folder: Where the file lies, nameless; the system's folder of temporary files if None.
    """

    def __init__(self, shape: tuple[int, int], dtype: Any, folder: Path | None = None) -> None:
        self.shape, self.dtype, self._folder = shape, np.dtype(dtype), folder
        self._row_bytes = self.dtype.itemsize * shape[1]
        self._file = _temporary_file(folder)
        self._file.truncate(self._row_bytes * shape[0])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Shaped[np.ndarray, "row column"]:
        first, count = self._range(rows)
        data = _read(self._file, count * self._row_bytes, first * self._row_bytes)
        # A copy, to be changed in place.
        return np.frombuffer(bytearray(data), self.dtype).reshape(count, self.shape[1])

    def __setitem__(self, rows: slice, values: Shaped[np.ndarray, "row column"]) -> None:
        first, count = self._range(rows)
        assert values.shape == (count, self.shape[1]), "whole rows"
        content = np.ascontiguousarray(values, dtype=self.dtype).tobytes()
        _write(self._file, content, first * self._row_bytes, self._folder)

    def select(self, chosen: Shaped[np.ndarray, " some"]) -> DiskMatrix:
        """Copy some columns, given by numbers or by a mask."""
        numbers = np.arange(self.shape[1])[chosen]
        selected = DiskMatrix((len(self), len(numbers)), self.dtype, self._folder)
        size = max(1, _BLOCK_BYTES // max(1, self._row_bytes))
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            selected[rows] = self[rows][:, numbers]
        return selected

    def _range(self, rows: slice) -> tuple[int, int]:
        """Return the first row of a slice and their number."""
        start, stop, step = rows.indices(len(self))
        assert step == 1, "rows are read and written in order"
        return start, max(0, stop - start)


def _temporary_file(folder: Path | None) -> BinaryIO:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    # A file without a buffer: every write is large.
    return tempfile.TemporaryFile(dir=folder, buffering=0)


def _write(file: BinaryIO, content: bytes, offset: int, folder: Path | None) -> None:
    """Write all of it.

    Raises:
        UserError: The disk is full.
    """
    view = memoryview(content)
    with sentences_for_disk_errors(folder or Path(tempfile.gettempdir())):
        while len(view):
            written = os.pwrite(file.fileno(), view, offset)
            view, offset = view[written:], offset + written


def _read(file: BinaryIO, wanted: int, offset: int) -> bytes:
    pieces = []
    while wanted:
        piece = os.pread(file.fileno(), wanted, offset)
        if not piece:
            raise OSError("a temporary file of features became shorter while it was read")
        pieces.append(piece)
        wanted, offset = wanted - len(piece), offset + len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def blocks_of(x: np.ndarray | DiskRows, start: int, stop: int, columns: int = 1) -> Iterator[slice]:
    """Cut a range of rows into pieces that may be in memory: one where the rows are.

    Args:
        x: The rows.
        start: First row.
        stop: Row behind the last.
        columns: Numbers beside each row that are in memory too.
    """
    size = max(1, stop - start)
    if isinstance(x, DiskRows):
        size = max(1, _BLOCK_BYTES // (4 * max(x.shape[1], columns)))
    return (slice(first, min(first + size, stop)) for first in range(start, stop, size))


def difference_rows(
    items: DiskRows, rows: Int[np.ndarray, "pair 2"], order: Int[np.ndarray, " pair"] | None = None
) -> DiskRows:
    """Write the differences of pairs of items beside them, tokens side by side, in an order or in that of the pairs."""
    flat = items.flat()
    size = max(1, _BLOCK_BYTES // (4 * flat.shape[1]))

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(rows), size):
            here = slice(start, start + size)
            part = rows[here] if order is None else rows[order[here]]
            both = flat.take(part.reshape(-1)).reshape(len(part), 2, -1)
            yield both[:, 0] - both[:, 1]

    return DiskRows.write(blocks(), items.folder)
