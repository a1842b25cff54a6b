"""A user's own pairs: a CSV, Parquet or JSON-lines file beside its pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from probing.errors import UserError
from probing.preferences.data import PreferenceData
from probing.preferences.tables import COMPUTED, TEXTS, from_chosen_and_rejected

SUFFIXES = (".csv", ".parquet", ".jsonl")
_NEEDED = ("prompt", "chosen", "rejected")
_NO_NUMBER = ["", "NA", "NaN", "nan", "null", "None"]


def load(path: Path, *, root: Path | None = None, seed: int = 0) -> PreferenceData:
    """Read ``prompt, chosen, rejected[, margin, prompt_id, split, facet, tie, …]``.

    Prompts, paths and ids are taken as they are written: ``007`` and ``NA`` stay these words.

    Args:
        path: The file.
        root: What image paths are relative to (default: the file's folder).
        seed: Of places and of the split by prompt where there is no ``split`` column.

    Raises:
        UserError: The file is missing or no table, lacks a column, or has one that is made here; or what the
            tables refuse.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}; --data takes a data set's name or a file of pairs.")
    read: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": _read_csv,
        ".parquet": pd.read_parquet,
        ".jsonl": lambda p: pd.read_json(p, lines=True, precise_float=True, dtype=False),
    }
    try:
        table = read[path.suffix](path)
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is no {path.suffix} table ({' '.join(str(error).split())}).") from error
    missing = [column for column in _NEEDED if column not in table]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(map(str, table.columns))}.")
    taken = [column for column in COMPUTED if column in table]
    if taken:
        raise UserError(f"{path} has the columns {', '.join(taken)}, which are made here; rename or remove them.")
    return from_chosen_and_rejected(path.stem, table, root or path.parent, seed=seed)


def _read_csv(path: Path) -> pd.DataFrame:
    columns = pd.read_csv(path, nrows=0).columns
    return pd.read_csv(
        path,
        dtype={column: str for column in columns if column in TEXTS},
        keep_default_na=False,
        na_values={column: _NO_NUMBER for column in columns if column not in TEXTS},
    )
