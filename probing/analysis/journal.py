"""What is measured of a cell, kept on disk until the whole is done, so that a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float


class Measured(NamedTuple):
    """One cell: its row of the table, and the margins of the test pairs, (pair, seed)."""

    row: dict[str, Any]
    margins: Float[np.ndarray, "pair seed"]


class Journal:
    """A folder of measured cells, in parts named by what was asked and of which data.

    Args:
        folder: Where it is kept; None keeps nothing.
        settings: Whatever changes a measurement: a part written under others is not found.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        self._folder, self._settings = folder, settings

    def find(self, name: str) -> list[Measured] | None:
        """Return the cells of a part, or None where it is not there."""
        path = self._path(name)
        if path is None or not path.exists():
            return None
        with np.load(path) as kept:
            rows = json.loads(str(kept["rows"]))
            return [Measured(row, kept[f"margins{place}"]) for place, row in enumerate(rows)]

    def keep(self, name: str, cells: list[Measured]) -> None:
        """Write a part, whole or not at all."""
        path = self._path(name)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            arrays: dict[str, Any] = {f"margins{place}": cell.margins for place, cell in enumerate(cells)}
            np.savez(file, rows=np.array(json.dumps([cell.row for cell in cells])), **arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    def _path(self, name: str) -> Path | None:
        if self._folder is None:
            return None
        said = json.dumps([name, dict(self._settings)], sort_keys=True, default=str)
        return self._folder / f"{hashlib.sha256(said.encode()).hexdigest()[:24]}.npz"


def clear(folder: Path) -> None:
    """Take a journal away, once what it held is written elsewhere."""
    shutil.rmtree(folder, ignore_errors=True)
