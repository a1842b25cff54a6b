"""Tables on the page: few rows, few columns, numbers of four digits; and the whole table as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

ROWS, COLUMNS = 100, 40
"""Shown of a long table; the rest is in its CSV."""
_MAX_TEXT, _MAX_WORD, _CUT_WORD = 240, 100, 24


@dataclass(frozen=True)
class Column:
    """A column's name, and how it is set: ``number``, ``word``, ``prose`` that wraps, or ``code`` such as a hash."""

    name: str
    kind: str


@dataclass(frozen=True)
class Grid:
    """Cells as text.

    Attributes:
        columns: In order.
        rows: Texts, a cell a column.
        left_out_rows: Number of rows not shown.
        left_out_columns: Number of columns not shown, without constant ones.
        constant: Columns with one value, and the value.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    left_out_rows: int = 0
    left_out_columns: int = 0
    constant: Sequence[tuple[str, str]] = ()


def preview(table: pd.DataFrame, *, rows: int = ROWS, columns: int = COLUMNS) -> Grid:
    """Show the first rows of a table; a constant column is named once."""
    constant = [name for name in table if len(table) > 1 and _is_constant(table[name])]
    varying = [name for name in table if name not in constant]
    shown = grid(table[varying[:columns]].head(rows))
    return Grid(
        shown.columns,
        shown.rows,
        max(len(table) - rows, 0),
        max(len(varying) - columns, 0),
        [(str(name), cell(table[name].iloc[0]) or "(empty)") for name in constant],
    )


def grid(table: pd.DataFrame) -> Grid:
    """Show every cell of a table."""
    texts = [[cell(value) for value in table[name]] for name in table]
    columns = [Column(str(name), _kind(table[name], column)) for name, column in zip(table, texts, strict=True)]
    return Grid(columns, list(zip(*texts, strict=True)))


def cell(value: Any) -> str:
    """Format one value: four digits of a fraction, nothing for a missing one, the beginning of a long one."""
    if value is None or value is pd.NA or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    text = str(value.tolist() if isinstance(value, np.ndarray) else value)
    if len(text) > _MAX_WORD and " " not in text:
        return f"{text[:_CUT_WORD]}… ({len(text):,} characters)"
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def csv_of(table: pd.DataFrame) -> bytes:
    """Write the whole table, as :func:`probing.plots.save_figure` does beside a figure."""
    return table.to_csv(index=False, lineterminator="\n").encode()


def distinct(column: pd.Series) -> list[str]:
    """List a column's distinct values as text: numbers by size, words in order of appearance."""
    present = column.dropna()
    if pd.api.types.is_numeric_dtype(present):
        present = present.drop_duplicates().sort_values()
    return list(dict.fromkeys(cell(value) for value in present))


def _is_constant(column: pd.Series) -> bool:
    """Return whether every row has the same value, or none."""
    if column.isna().all():
        return True
    # Lists and arrays cannot be counted, and a figure's table may hold them.
    comparable = column if column.dtype != object else column.map(repr)
    return comparable.nunique(dropna=False) == 1


def _kind(column: pd.Series, texts: Sequence[str]) -> str:
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return "number"
    if any(len(text) > 60 and " " in text for text in texts):
        return "prose"
    return "code" if any(len(text) > 30 and " " not in text for text in texts) else "word"
