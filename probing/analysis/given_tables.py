"""Tables that a person gives or keeps: read whole, with the columns that are needed, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from probing.errors import UserError
from probing.files import read_parquet


def read_given(path: Path, made_by: str, columns: Collection[str] = ()) -> pd.DataFrame:
    """Read a ``.parquet`` or ``.csv`` table.

    Args:
        path: The file.
        made_by: The command that makes such a table.
        columns: That it must have.

    Raises:
        UserError: There is no such file, it is damaged, or a column is missing.
    """
    if path.suffix == ".csv" and path.is_file():
        try:
            table = pd.read_csv(path)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path} is no CSV table ({reason}); make it again by {made_by}.") from error
    else:
        table = read_parquet(path, made_by)
    missing = [name for name in columns if name not in table]
    if missing:
        raise UserError(f"The table {path} has no {', '.join(missing)}; it needs {', '.join(columns)}.")
    return table
