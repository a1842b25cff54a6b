"""Heat maps of people beside the pictures of Parquet files: where they saw a fault."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from probing.errors import UserError
from probing.preferences.images.decoding import decode
from probing.preferences.images.sources import ParquetImages


@runtime_checkable
class HeatMaps(Protocol):
    """Opens heat maps by the names of pictures.

    Attributes:
        kinds: Kinds of map, such as ``misalignment`` and ``artifacts``.
    """

    @property
    def kinds(self) -> tuple[str, ...]: ...

    def heat_map(self, name: str, kind: str, record: str) -> Float[np.ndarray, "row column"] | None:
        """Open a map, higher where there is more of a fault; None where people were not asked, which is not zero."""
        ...


class HeatMappedImages(ParquetImages):
    """Pictures in Parquet files with heat maps in other columns: nested lists of numbers, or grey pictures.

    Args:
        root: Folder of the files.
        maps: Column of each kind of map.
    """

    def __init__(self, root: Path, maps: Mapping[str, str]) -> None:
        super().__init__(root)
        self._maps = dict(maps)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self._maps)

    def heat_map(self, name: str, kind: str, record: str) -> Float[np.ndarray, "row column"] | None:
        """Open a map.

        Raises:
            UserError: The map is damaged; the message names the record.
        """
        file, row, _ = name.rsplit("#", 2)
        where = f"{self._maps[kind]} in {self.root / file}"
        value = self.value_at(file, int(row), self._maps[kind], record)
        if isinstance(value, Mapping):
            value = value.get("bytes")
        if value is None or value in (b"", []):
            return None
        if isinstance(value, bytes):
            return np.asarray(decode(value, where, record).convert("L"), dtype=np.float32) / 255
        return _grid(value, where, record)


def _grid(value: Any, where: str, record: str) -> Float[np.ndarray, "row column"] | None:
    try:
        grid = np.array([np.asarray(line, dtype=np.float32) for line in value])
    except (ValueError, TypeError):
        grid = np.zeros(0, np.float32)
    if grid.ndim == 2 and grid.size and np.isfinite(grid).all():
        return grid
    if grid.ndim == 2 and not grid.size:
        return None
    raise UserError(f"{where} of record {record!r} is no grid of finite numbers; download the file again.")
