"""Write files atomically: write under a temporary name, sync, rename."""

from __future__ import annotations

import errno
import glob
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from probing.errors import UserError

UMASK = os.umask(0)
"""File mode bits that new files do not get. Reading the umask sets it for a moment, which is not thread-safe: read it
once, at import."""
os.umask(UMASK)
_ABANDONED_SECONDS = 24 * 3600
"""Age above which a temporary file belongs to a killed process; no table takes a day to write."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file next to ``path``; at the end, sync it and rename it to ``path``.

    A reader gets the old content or the new one, never a part. An exception leaves the old content.

    Raises:
        UserError: ``path`` is not a regular file, the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise UserError(f"{path} is {kind} and cannot be replaced by a file; give another path.")
    with sentences_for_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # A unique name: two processes never write the same temporary file.
        prefix = f".{path.name[:64]}."
        for partial in path.parent.glob(f"{glob.escape(prefix)}*.partial"):
            with suppress(FileNotFoundError):
                if time.time() - partial.stat().st_mtime > _ABANDONED_SECONDS:
                    partial.unlink()
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
    """Turn the error of a full or read-only disk, or of a folder that cannot be created, into a :class:`UserError`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise UserError(f"The disk of {path} is full; free some space and give the same command again.") from error
        if error.errno in _FORBIDDEN:
            raise UserError(f"{path} cannot be written ({error.strerror}); give a path that can be written.") from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG):
            raise UserError(f"{path} cannot be created ({error.strerror}); give another path.") from error
        raise


def sync(folder: Path) -> None:
    """Sync a folder's directory entries to disk, so that a rename survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems cannot sync a folder.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    with replace_file(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode("utf-8"))
