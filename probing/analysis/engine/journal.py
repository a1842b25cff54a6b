"""Finished fits on disk, so that an interrupted run continues and no experiment repeats a fit of another."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from probing.analysis.engine.identity import table_digest
from probing.analysis.engine.provenance import KEYS, package_version
from probing.analysis.engine.recipe import Recipe
from probing.analysis.engine.source import FeatureSource, digest_of
from probing.files import write_bytes

_FORMAT = 5
LIMIT = 2 * 2**30
"""Bytes of fits that are kept."""
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch")
_FILE_NAME = re.compile(r"[0-9a-f]{24}\.npz|\.[0-9a-f]{24}\.npz\..*\.partial")
"""An entry, or one that was being written when the process was killed."""


class Entry(NamedTuple):
    """One finished fit.

    Attributes:
        values: Numbers and text.
        arrays: Arrays by name.
    """

    values: dict[str, Any]
    arrays: dict[str, np.ndarray]


class Journal:
    """A folder with one file a finished fit.

    A file is an ``.npz`` followed by the SHA-256 of its key and content. A file that is cut off, changed or written
    under another key is ignored, and its fit repeated.

    Args:
        folder: The folder; None keeps nothing.
        settings: Everything that changes a fit, as :func:`journal_settings` returns it.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        self._folder, self._settings = folder, settings

    def read(self, cell: str) -> Entry | None:
        """Return the entry of a cell; None if it is missing or damaged."""
        if self._folder is None:
            return None
        key, path = self._key(cell)
        try:
            stored = path.read_bytes()
        except OSError:
            return None
        content, checksum = stored[:-64], stored[-64:]
        # Verify before parsing: a damaged archive can raise anything.
        if checksum != _checksum(key, content):
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            loaded = dict(arrays)
        return Entry(json.loads(str(loaded.pop("values"))), loaded)

    def write(self, cell: str, entry: Entry) -> None:
        """Write an entry, whole or not at all.

        Raises:
            UserError: The disk is full or the folder cannot be written.
        """
        if self._folder is None:
            return
        key, path = self._key(cell)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, values=np.array(json.dumps(entry.values)), **entry.arrays)
        write_bytes(path, buffer.getvalue() + _checksum(key, buffer.getvalue()))

    def _key(self, cell: str) -> tuple[str, Path]:
        assert self._folder is not None
        key = json.dumps([cell, dict(self._settings)], sort_keys=True, default=str)
        return key, self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"


def journal_settings(store: FeatureSource, pairs: pd.DataFrame, recipe: Recipe) -> dict[str, Any]:
    """List what changes any fit: the store's content, the pairs in their order, the recipe, versions."""
    columns = dict.fromkeys((*KEYS, "first", "second", "choice", "split", recipe.labels, recipe.weights))
    return {
        "format": _FORMAT,
        "store": digest_of(store),
        # Margins are stored in the order of the pairs, so the order is part of the digest.
        "pairs": table_digest(pairs[[name for name in columns if name in pairs]]),
        "recipe": {**vars(recipe), "device": recipe.resolved_device},
        "package": package_version(),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
    }


def prune_journal(folder: Path, limit: int = LIMIT) -> None:
    """Remove the oldest of a journal's own files until it is small enough; other files in its folder stay.

    Args:
        folder: The folder; it may be missing.
        limit: Largest size, in bytes.
    """
    entries = []
    with suppress(OSError):
        for path in folder.iterdir():
            if _FILE_NAME.fullmatch(path.name):
                status = path.stat()
                entries.append((status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= size


def _checksum(key: str, content: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + content).hexdigest().encode()
