"""Write files of pairs as a user does."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def write_pairs_file(folder: Path, rows: pd.DataFrame | list | dict, suffix: str = ".csv") -> str:
    """Write a table as ``mine.csv``, ``.parquet`` or ``.jsonl``; return its path."""
    path, table = folder / f"mine{suffix}", pd.DataFrame(rows)
    if suffix == ".csv":
        table.to_csv(path, index=False)
    elif suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_json(path, orient="records", lines=True)
    return str(path)
