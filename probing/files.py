"""Write files whole or not at all: temporary name, sync, rename."""

from __future__ import annotations

import errno
import glob
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from probing.errors import UserError

METADATA_KEY = b"probing"
"""Key of this package's JSON in the metadata of a Parquet file."""
UMASK = os.umask(0)
"""Rights that new files do not get. It can only be read by setting it, which threads would do to one another."""
os.umask(UMASK)
_ABANDONED_SECONDS = 24 * 3600
"""Age from which a temporary file is taken to be of a killed process; no table takes a day to write."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; at the end, sync it and rename it to ``path``.

    Readers see the old content or the new, never a part. An exception leaves the old content.

    Raises:
        UserError: ``path`` is not a regular file, the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "not a regular file"
        raise UserError(f"{path} is {what} and cannot be replaced by a file; give another path.")
    with sentences_for_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own, so that two processes never write the same temporary file.
        prefix = f".{path.name[:64]}."
        for left in path.parent.glob(f"{glob.escape(prefix)}*.partial"):
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                    left.unlink()
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=".partial")
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~UMASK)
            os.replace(name, path)
            sync(path.parent)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(name)
            raise


@contextmanager
def sentences_for_disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk, and a folder that cannot be made, into a :class:`UserError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise UserError(f"The disk of {path} is full; free some space and give the same command again.") from error
        if error.errno in _FORBIDDEN:
            raise UserError(f"{path} cannot be written ({error.strerror}); give a path that can be written.") from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG):
            raise UserError(f"{path} cannot be made ({error.strerror}); give another path.") from error
        raise


def sync(folder: Path) -> None:
    """Force a folder's list of names onto the disk, so that a rename survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems cannot sync a folder.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes, whole or not at all."""
    with replace_file(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV with ``\\n`` line ends, without its index, whole or not at all."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def write_parquet(path: Path, table: pd.DataFrame, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a table as Parquet, without its index, whole or not at all.

    Args:
        path: The file.
        table: Its rows.
        metadata: JSON values kept in the file's own metadata, as :func:`read_metadata` reads them.
    """
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    if metadata is not None:
        text = json.dumps(metadata, sort_keys=True)
        arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), METADATA_KEY: text.encode()})
    with replace_file(path) as file:
        pq.write_table(arrow, file)


def read_metadata(path: Path) -> dict[str, Any]:
    """Read what :func:`write_parquet` kept beside the rows; empty where nothing was, or where it cannot be read."""
    try:
        kept = (pq.read_schema(path).metadata or {}).get(METADATA_KEY)
        found = {} if kept is None else json.loads(kept)
    except (OSError, ValueError, pa.ArrowException):
        return {}
    return found if isinstance(found, dict) else {}


def read_parquet(path: Path, made_by: str) -> pd.DataFrame:
    """Read a Parquet table that this package wrote.

    Args:
        path: The file.
        made_by: The command that makes it, for the message.

    Raises:
        UserError: The file is not there, or is damaged.
    """
    if not path.is_file():
        raise UserError(f"There is no table at {path}; {made_by} writes it.")
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged or no Parquet table ({reason}); make it again by {made_by}.") from error
