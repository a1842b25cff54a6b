"""Read columns of Parquet files, types checked first, and find the files of a split in the hub's layout."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from probing.errors import UserError, listed, shown
from probing.paths import openable
from probing.preferences.tables.column_types import MOST_COLUMNS, Kind, bring_to_kind, check_type

MOST_RECORDS = 100_000_000
"""Largest number of records of a file: fifty times the largest public data set; a damaged file can claim any number."""
_INDEX = "__index_level_"
_ROWS_AT_ONCE = 64


@contextmanager
def damage_reported(path: Path, what: str, fix: str) -> Iterator[None]:
    """Turn every error of PyArrow on a damaged file into a :class:`UserError`: ``PATH is WHAT (reason); FIX.``"""
    try:
        yield
    except UserError:
        raise
    except (
        OSError,
        ValueError,
        TypeError,
        OverflowError,
        MemoryError,
        NotImplementedError,
        pa.ArrowException,
    ) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path} is {what} ({reason}); {fix}.") from error


def opened(path: Path) -> pq.ParquetFile:
    """Open a Parquet file, also one at a URL, of which only what is read is fetched."""
    return pq.ParquetFile(openable(path))


def read_columns(
    path: Path,
    needed: Mapping[str, Kind],
    also: Mapping[str, Kind] | None = None,
    *,
    others: Callable[[str], Kind] | None = None,
) -> pa.Table:
    """Read columns; their types are checked before any value is read.

    Args:
        path: The file.
        needed: Required columns; those of kind ``picture`` are checked and left out.
        also: Optional columns.
        others: Kind of any other column; without it, they are not read.

    Raises:
        UserError: A column is missing, repeated, or of another type; or there are too many columns or records.
    """
    file = opened(path)
    schema = file.schema_arrow
    names = [name for name in schema.names if not name.startswith(_INDEX)]
    if len(names) > MOST_COLUMNS:
        raise UserError(f"{path} has {len(names):,} columns, expected at most {MOST_COLUMNS:,}; check the file.")
    if file.metadata.num_rows > MOST_RECORDS:
        raise UserError(
            f"{path} has {file.metadata.num_rows:,} records, expected at most {MOST_RECORDS:,}; check the file."
        )
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path} has the column {shown(name)} twice; name each column once.")
    missing = [column for column in needed if column not in names]
    if missing:
        raise UserError(f"{path} lacks the columns {listed(missing)}; it has {listed(names)}.")
    kinds = {**({name: others(name) for name in names} if others else {}), **(also or {}), **needed}
    selected: dict[str, Kind] = {name: kinds[name] for name in names if name in kinds}
    for name, kind in selected.items():
        check_type(path, name, schema.field(name).type, kind)
    values = {name: kind for name, kind in selected.items() if kind != "picture"}
    table = file.read(columns=list(values))
    # Otherwise bytes that are no UTF-8 are accepted as strings.
    table.validate(full=True)
    return pa.table({name: bring_to_kind(table[name], kind) for name, kind in values.items()})


def column_names(path: Path) -> list[str]:
    """Return the names of a file's columns.

    Raises:
        UserError: It is no Parquet file, or damaged.
    """
    with damage_reported(path, "no whole Parquet file", "download it again"):
        return [str(name) for name in opened(path).schema_arrow.names]


def files_of(root: Path, split: str, folders: Sequence[str]) -> list[str]:
    """Find ``SPLIT-00000-of-….parquet`` in one of the folders; paths relative to ``root``, in order.

    Raises:
        UserError: There is none.
    """
    for folder in folders:
        paths = sorted((root / folder).glob(f"{split}-*.parquet")) or sorted((root / folder).glob(f"{split}.parquet"))
        if paths:
            return [path.relative_to(root).as_posix() for path in paths]
    raise UserError(f"{root} has no {split}-*.parquet; --data-root is the folder of the downloaded data set.")


def picture_hashes(root: Path, file: str, column: str) -> list[str]:
    """Hash the bytes of a column's pictures, which are their names where the data set gives none.

    Raises:
        UserError: A row has no picture.
    """
    hashes: list[str] = []
    with damage_reported(root / file, "no whole Parquet file", "download it again"):
        for batch in opened(root / file).iter_batches(_ROWS_AT_ONCE, columns=[column]):
            for value in batch.column(0):
                data = picture_bytes(value.as_py())
                if not isinstance(data, bytes) or not data:
                    raise UserError(f"Record {len(hashes)} of {root / file} has no {column}; download the file again.")
                hashes.append(hashlib.blake2b(data, digest_size=12).hexdigest())
    return hashes


def picture_bytes(value: Any) -> Any:
    """Return the bytes of a picture that is given as such, as a structure, or as a list of one."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value.get("bytes") if isinstance(value, dict) else value


def list_rows(
    root: Path, files: Sequence[str], needed: Mapping[str, Kind], also: Mapping[str, Kind] | None = None
) -> pd.DataFrame:
    """Read columns of several files as one table, with ``file`` and ``row`` of each record.

    Args:
        root: Folder that ``files`` are relative to.
        files: The files.
        needed: Required columns and their kinds; pictures are checked, not read.
        also: Optional columns.

    Raises:
        UserError: A file is no Parquet file, is cut off, lacks a column, or has one of another type.
    """
    parts = []
    for file in files:
        with damage_reported(root / file, "no whole Parquet file", "download it again"):
            rows = read_columns(root / file, needed, also).to_pandas()
        parts.append(rows.assign(file=file, row=range(len(rows))))
    table = pd.concat(parts, ignore_index=True)
    if len(table) == 0:
        raise UserError(f"{root / files[0]} contains no records; download it again.")
    return table
