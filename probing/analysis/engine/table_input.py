"""Tables given as settings: a data frame, or a path to one."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from probing.errors import UserError
from probing.result_tables import read_result

TableInput = pd.DataFrame | str
"""A table, or the path of a ``.parquet`` or ``.csv`` file."""


def load_table(table: TableInput, made_by: str, columns: Collection[str]) -> pd.DataFrame:
    """Return a table with the required columns, read from its file if it is a path.

    Args:
        table: A data frame or a path.
        made_by: The command that writes such a table, for the message.
        columns: Required columns.

    Raises:
        UserError: The file is missing or damaged, or a column is missing.
    """
    if isinstance(table, str | Path):
        return read_result(Path(table), made_by, columns)
    missing = [name for name in columns if name not in table]
    if missing:
        raise UserError(f"The table has no {', '.join(missing)}; it needs {', '.join(columns)} ({made_by} writes it).")
    return table


def loaded(table: TableInput) -> pd.DataFrame:
    """Return a table that a settings' class has loaded."""
    assert isinstance(table, pd.DataFrame)
    return table
