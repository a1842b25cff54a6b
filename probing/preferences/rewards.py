"""Files of rewards: the score that a probe or another model gives to each item."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from probing.errors import UserError
from probing.preferences.tables.column_types import Kind, numbers
from probing.preferences.tables.table_file import SUFFIXES, read_table

_KINDS: dict[str, Kind] = {"item_id": "id", "prompt": "prompt", "image": "path", "facet": "label", "reward": "number"}


def read_rewards(path: Path) -> pd.DataFrame:
    """Read a table of ``reward`` by ``item_id``, or by ``prompt`` and ``image``.

    An empty reward is a gap; ``nan`` and infinity are errors of the model that was scored.

    Args:
        path: A ``.csv``, ``.parquet`` or ``.jsonl``.

    Raises:
        UserError: No such file, no such table, or a reward that is no finite number; with the record.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"Rewards are a file that ends in {', '.join(SUFFIXES)}, got {path}.")
    if not path.is_file():
        raise UserError(f"There is no file {path}; python -m probing.score --list-items writes what it should hold.")
    table = read_table(path, lambda column: _KINDS.get(column, "plain"))
    if "reward" in table:
        records = table["item_id"] if "item_id" in table else pd.Series(table.index.astype(str), index=table.index)
        table["reward"] = numbers(table["reward"], records, gaps=("",))
    return table
