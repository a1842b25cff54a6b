"""Files of rewards: what a probe or another model says of each item."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from probing.errors import UserError


def read_rewards(path: Path) -> pd.DataFrame:
    """Read a table of ``reward`` by ``item_id``, or by ``prompt`` and ``image``.

    Args:
        path: A ``.csv``, ``.parquet`` or ``.jsonl``.

    Raises:
        UserError: No such file, or no such table.
    """
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": lambda p: pd.read_csv(p, dtype={"item_id": str, "prompt": str, "image": str}, keep_default_na=False,
                                      na_values={"reward": [""]}),
        ".parquet": pd.read_parquet,
        ".jsonl": lambda p: pd.read_json(p, lines=True, dtype=False, precise_float=True),
    }  # fmt: skip
    if path.suffix not in readers:
        raise UserError(f"Rewards are a file that ends in {', '.join(readers)}, got {path}.")
    if not path.is_file():
        raise UserError(f"There is no file {path}; python -m probing.score --list-items writes what it should hold.")
    try:
        return readers[path.suffix](path)
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is no {path.suffix} table ({' '.join(str(error).split())}).") from error
