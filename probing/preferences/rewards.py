"""Read files of rewards: the score of each item by a probe or another model."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from probing.errors import UserError
from probing.preferences.tables.column_types import Kind, numbers
from probing.preferences.tables.table_file import SUFFIXES, read_table

_KINDS: dict[str, Kind] = {"item_id": "id", "prompt": "prompt", "image": "path", "facet": "label", "reward": "number"}


def read_rewards(path: Path) -> pd.DataFrame:
    """Read a table of ``reward`` by ``item_id``, or by ``prompt`` and ``image``.

    An empty reward is a gap; ``nan`` and infinity are refused.

    Args:
        path: A ``.csv``, ``.parquet`` or ``.jsonl`` file.

    Raises:
        UserError: The file is missing or no table, or a reward is not a finite number; the message names the record.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"A file of rewards ends in {', '.join(SUFFIXES)}, got {path}.")
    if not path.is_file():
        raise UserError(
            f"There is no file {path}; python -m probing.score --list-items writes the items that it should contain."
        )
    table = read_table(path, lambda column: _KINDS.get(column, "plain"))
    if "reward" in table:
        records = table["item_id"] if "item_id" in table else pd.Series(table.index.astype(str), index=table.index)
        table["reward"] = numbers(table["reward"], records, gaps=("",))
    return table
