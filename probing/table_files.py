"""Write tables atomically as CSV or Parquet, and read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from probing.errors import UserError
from probing.files import replace_file, write_text
from probing.paths import AnyPath, openable

_METADATA_KEY = b"probing"
"""Key of this package's JSON in the metadata of a Parquet file."""


def write_csv(path: AnyPath, table: pd.DataFrame) -> None:
    """Write a table atomically as CSV with ``\\n`` line ends, without its index."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def write_parquet(path: AnyPath, table: pd.DataFrame, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a table atomically as Parquet, without its index.

    Args:
        path: The file.
        table: The table.
        metadata: JSON values to store in the file's metadata, for :func:`read_metadata`.
    """
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    if metadata is not None:
        text = json.dumps(metadata, sort_keys=True)
        arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), _METADATA_KEY: text.encode()})
    with replace_file(path) as file:
        pq.write_table(arrow, file)


def read_metadata(path: AnyPath) -> dict[str, Any]:
    """Read the metadata that :func:`write_parquet` stored; empty if there is none, or if it cannot be read."""
    try:
        text = (pq.read_schema(openable(path)).metadata or {}).get(_METADATA_KEY)
        metadata = {} if text is None else json.loads(text)
    except (OSError, ValueError, pa.ArrowException):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def read_parquet(path: AnyPath, made_by: str) -> pd.DataFrame:
    """Read a Parquet table that this package wrote.

    Args:
        path: The file.
        made_by: Command that writes it, for the message.

    Raises:
        UserError: The file does not exist, or is damaged.
    """
    if not path.is_file():
        raise UserError(f"There is no table at {path}; {made_by} writes it.")
    try:
        return pd.read_parquet(openable(path))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} is damaged or not a Parquet table ({reason}); write it again with {made_by}."
        ) from error
