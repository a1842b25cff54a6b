"""Parquet files of one split as the hub lays them out, listed without their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from probing.errors import UserError


def files_of(root: Path, split: str, folders: Sequence[str]) -> list[str]:
    """Find ``SPLIT-00000-of-….parquet`` in one of the folders; paths relative to ``root``, in order.

    Raises:
        UserError: There is none.
    """
    for folder in folders:
        found = sorted((root / folder).glob(f"{split}-*.parquet")) or sorted((root / folder).glob(f"{split}.parquet"))
        if found:
            return [path.relative_to(root).as_posix() for path in found]
    raise UserError(f"{root} has no {split}-*.parquet; --data-root is the folder of the downloaded data set.")


def list_rows(root: Path, files: Sequence[str], needed: Sequence[str], also: Sequence[str] = ()) -> pd.DataFrame:
    """Read columns of several files as one table, with ``file`` and ``row`` of each record.

    Args:
        root: Folder that ``files`` are relative to.
        files: The files.
        needed: Columns that each must have.
        also: Columns that are read where they are there.

    Raises:
        UserError: A file is no Parquet file, is cut off, or lacks a column.
    """
    parts = []
    for file in files:
        try:
            names = pq.read_schema(root / file).names
            missing = [column for column in needed if column not in names]
            if missing:
                raise UserError(f"{root / file} lacks the columns {', '.join(missing)}; it has {', '.join(names)}.")
            rows = pq.read_table(root / file, columns=[c for c in (*needed, *also) if c in names]).to_pandas()
        except (OSError, pa.ArrowInvalid) as error:
            said = " ".join(str(error).split())
            raise UserError(f"{root / file} is no whole Parquet file ({said}); download it again.") from error
        parts.append(rows.assign(file=file, row=range(len(rows))))
    table = pd.concat(parts, ignore_index=True)
    if len(table) == 0:
        raise UserError(f"{root / files[0]} holds no records; download it again.")
    return table
