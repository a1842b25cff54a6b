"""Measured cells on disk until the whole table is done, so that a killed run continues where it stopped."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.analysis.identity import table_digest
from probing.analysis.recipe import Recipe
from probing.analysis.results import KEYS, package_version
from probing.analysis.source import FeatureSource, identity_of
from probing.files import write_bytes

_FORMAT = 2
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch")
_NAME = re.compile(r"[0-9a-f]{24}\.npz|\.[0-9a-f]{24}\.npz\..*\.partial")
"""Of a part, and of one that was being written when the process was killed."""


class Measured(NamedTuple):
    """One cell: its row of the table, and the margins of the test pairs, (pair, seed)."""

    row: dict[str, Any]
    margins: Float[np.ndarray, "pair seed"]


class Journal:
    """A folder of measured cells, one file a part.

    A file is an ``.npz`` followed by the SHA-256 of its key and content. One that is cut off, changed or written
    under another key is measured again.

    Args:
        folder: Where it is kept; None keeps nothing.
        settings: Everything that changes a measurement, as :func:`journal_settings` gives it.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        self._folder, self._settings = folder, settings

    def find(self, *names: str) -> list[Measured] | None:
        """Return the cells of a part; None where it is not there, or not whole."""
        if self._folder is None:
            return None
        key, path = self._key(names)
        try:
            kept = path.read_bytes()
        except OSError:
            return None
        content, checksum = kept[:-64], kept[-64:]
        # Checked before it is parsed: a damaged archive can raise anything.
        if checksum != _checksum(key, content):
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            rows = json.loads(str(arrays["rows"]))
            return [Measured(row, arrays[f"margins{number}"]) for number, row in enumerate(rows)]

    def keep(self, names: Sequence[str], cells: list[Measured]) -> None:
        """Write a part, whole or not at all.

        Raises:
            UserError: The disk is full or the folder cannot be written.
        """
        if self._folder is None:
            return
        key, path = self._key(names)
        held = io.BytesIO()
        arrays: dict[str, Any] = {f"margins{number}": cell.margins for number, cell in enumerate(cells)}
        np.savez(held, rows=np.array(json.dumps([cell.row for cell in cells])), **arrays)
        write_bytes(path, held.getvalue() + _checksum(key, held.getvalue()))

    def _key(self, names: Sequence[str]) -> tuple[str, Path]:
        assert self._folder is not None
        key = json.dumps([list(names), dict(self._settings)], sort_keys=True, default=str)
        return key, self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"


def journal_settings(store: FeatureSource, pairs: pd.DataFrame, recipe: Recipe) -> dict[str, Any]:
    """List what changes any measurement: the store's content, the pairs in their order, the recipe, the versions."""
    columns = dict.fromkeys((*KEYS, "first", "second", "choice", "split", recipe.labels, recipe.weights))
    return {
        "format": _FORMAT,
        "store": identity_of(store),
        # Margins are kept in the order of the pairs, so the order is part of the digest.
        "pairs": table_digest(pairs[[name for name in columns if name in pairs]]),
        "recipe": {**vars(recipe), "device": recipe.resolved_device},
        "package": package_version(),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
    }


def clear(folder: Path) -> None:
    """Remove a journal's own files once the tables are written; other files in its folder stay."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if _NAME.fullmatch(path.name):
            path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _checksum(key: str, content: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + content).hexdigest().encode()
