"""A user's own pairs: a CSV, Parquet or JSON-lines file beside its pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from probing.errors import UserError
from probing.preferences.data import PreferenceData
from probing.preferences.tables import from_chosen_and_rejected

SUFFIXES = (".csv", ".parquet", ".jsonl")
_NEEDED = ("prompt", "chosen", "rejected")


def load(path: Path, *, root: Path | None = None, seed: int = 0) -> PreferenceData:
    """Read ``prompt, chosen, rejected[, margin, prompt_id, split, facet, tie, …]``.

    Args:
        path: The file.
        root: What image paths are relative to (default: the file's folder).
        seed: Of places and of the split by prompt where there is no ``split`` column.

    Raises:
        UserError: The file is missing, no table, or lacks a column; or what the tables refuse.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}; --data takes a data set's name or a file of pairs.")
    read: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": pd.read_csv,
        ".parquet": pd.read_parquet,
        ".jsonl": lambda p: pd.read_json(p, lines=True, precise_float=True),
    }
    try:
        table = read[path.suffix](path)
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is no {path.suffix} table ({' '.join(str(error).split())}).") from error
    missing = [column for column in _NEEDED if column not in table]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(map(str, table.columns))}.")
    return from_chosen_and_rejected(path.stem, table, root or path.parent, seed=seed)
