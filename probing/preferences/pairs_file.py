"""A user's own pairs: a CSV, Parquet or JSON-lines file beside its pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from probing.errors import UserError
from probing.preferences.image_sources import ImageFolder, ImageSource
from probing.preferences.tables import choice_of_chosen, filled_text, numbers

SUFFIXES = (".csv", ".parquet", ".jsonl")
_NEEDED = ("prompt", "chosen", "rejected")
_WORDS = (*_NEEDED, "prompt_id", "pair_id", "list_id", "split", "facet", "tie")
"""Columns that are read as they are written, never as numbers."""
_MADE = ("first", "second", "choice")
_NO_NUMBER = ["", "NA", "NaN", "nan", "null", "None"]


def read(path: Path, *, root: Path | None = None) -> tuple[pd.DataFrame, ImageSource]:
    """Read ``prompt, chosen, rejected[, margin, prompt_id, split, facet, tie, …]``.

    Prompts, paths and ids are taken as they are written: ``007`` and ``NA`` stay these words. Columns that end in
    ``_chosen`` and ``_rejected``, such as ``source_model_chosen``, follow their picture's place.

    Args:
        path: The file.
        root: What image paths are relative to (default: the file's folder).

    Raises:
        UserError: The file is missing or no table, lacks a column, or has one that is made here; or a record has a
            gap.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}; --data takes a data set's name or a file of pairs.")
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": _read_csv,
        ".parquet": pd.read_parquet,
        ".jsonl": lambda p: pd.read_json(p, lines=True, precise_float=True, dtype=False),
    }
    try:
        table = readers[path.suffix](path)
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is no {path.suffix} table ({' '.join(str(error).split())}).") from error
    missing = [column for column in _NEEDED if column not in table]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(map(str, table.columns))}.")
    taken = [column for column in _MADE if column in table]
    if taken:
        raise UserError(f"{path} has the columns {', '.join(taken)}, which are made here; rename or remove them.")
    if len(table) == 0:
        raise UserError(f"There are no pairs in {path}; check the file.")
    for column in _NEEDED:
        table[column] = filled_text(path.stem, table[column])
    if "margin" in table:
        ids = table["pair_id"] if "pair_id" in table else "pair" + table.index.astype(str).to_series(table.index)
        table["margin"] = numbers(table["margin"], ids)
    return choice_of_chosen(path.stem, table), ImageFolder(root or path.parent)


def _read_csv(path: Path) -> pd.DataFrame:
    columns = pd.read_csv(path, nrows=0).columns
    return pd.read_csv(
        path,
        dtype={column: str for column in columns if column in _WORDS},
        keep_default_na=False,
        na_values={column: _NO_NUMBER for column in columns if column not in _WORDS},
    )
