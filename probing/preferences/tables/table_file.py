"""Read tables of a user from CSV, Parquet or JSON lines: the same columns and types from all three."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from probing.errors import UserError, listed
from probing.preferences.tables.column_types import Kind, infer_type
from probing.preferences.tables.csv_file import read_csv
from probing.preferences.tables.json_file import Reading, is_encodable, read_json
from probing.preferences.tables.parquet_file import damage_reported, read_columns

SUFFIXES = (".csv", ".parquet", ".jsonl")
_PLAIN_VALUES: tuple[tuple[type, ...], str] = ((str, int, float, bool), "a string, a number, or true or false")
_JSON_VALUES: dict[Kind, tuple[tuple[type, ...], str]] = {
    "prompt": ((str,), "a string"),
    "path": ((str,), "a string"),
    "label": ((str,), "a string"),
    "id": ((str, int), "a string or a whole number"),
    "number": ((str, int, float), "a number"),
    "truth": ((str, int, float, bool), "true or false"),
}


def read_table(path: Path, kind_of: Callable[[str], Kind]) -> pd.DataFrame:
    """Read all columns of a table, strictly.

    Texts and ids are read exactly as written: ``007`` and ``NA`` too. Numbers and true or false are
    kept as in the file; :func:`probing.preferences.tables.column_types.numbers`
    reads them and gives the record of an error.

    Args:
        path: The file; its suffix is one of :data:`SUFFIXES`.
        kind_of: Returns the kind of a column.

    Raises:
        UserError: Another suffix, a damaged file, or a column of another type than its kind.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"{path} ends in {suffix or 'no suffix'}; a table is a file that ends in {', '.join(SUFFIXES)}."
        )
    with damage_reported(path, f"no {suffix} table", "write it again"):
        if suffix == ".csv":
            return _from_csv(path, kind_of)
        if suffix == ".jsonl":
            return _from_json(path, kind_of)
        return read_columns(path, {}, others=kind_of).to_pandas()


def refuse_missing(path: Path, table: pd.DataFrame, needed: tuple[str, ...]) -> None:
    """Raise where a table lacks columns."""
    missing = [column for column in needed if column not in table]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}; it has {listed(table.columns)}.")


def _from_csv(path: Path, kind_of: Callable[[str], Kind]) -> pd.DataFrame:
    texts = read_csv(path)
    columns = {}
    for name in list(texts):
        # Removed from the dictionary, so that a large file is in memory once.
        values = texts.pop(name)
        columns[name] = infer_type(values) if kind_of(name) == "plain" else pd.Series(values, dtype="str")
    return pd.DataFrame(columns)


def _from_json(path: Path, kind_of: Callable[[str], Kind]) -> pd.DataFrame:
    return read_json(path, {}, others=lambda field: _reading_of(kind_of(field)), prefix="").to_pandas()


def _reading_of(kind: Kind) -> Reading:
    """Return a reading that accepts the JSON values of a kind, and gaps as None."""
    types, expected = _JSON_VALUES.get(kind, _PLAIN_VALUES)

    def read(value: Any) -> Any:
        if value is None or (kind == "plain" and value != value):
            return None
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise ValueError(f"{expected}, not {type(value).__name__}")
        if isinstance(value, str) and not is_encodable(value):
            raise ValueError(f"{expected} of whole Unicode characters")
        # Texts, so that a column can mix numbers and texts.
        return value if kind == "plain" else str(value)

    return read
