"""Write files atomically: write under a temporary name, sync, rename. At a URL, one upload is atomic by itself."""

from __future__ import annotations

import errno
import glob
import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from probing.errors import UserError
from probing.paths import AnyPath, is_remote

UMASK = os.umask(0)
"""File mode bits that new files do not get. Reading the umask sets it for a moment, which is not thread-safe: read it
once, at import."""
os.umask(UMASK)
_ABANDONED_SECONDS = 24 * 3600
"""Age above which a temporary file belongs to a killed process; no table takes a day to write."""
_ATTEMPTS = 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def replace_file(path: AnyPath) -> Iterator[BinaryIO]:
    """Open a temporary file next to ``path``; at the end, sync it and rename it to ``path``.

    A reader gets the old content or the new one, never a part. An exception leaves the old content.

    Raises:
        UserError: ``path`` is not a regular file, the folder cannot be written, or the disk is full.
    """
    if is_remote(path):
        content = io.BytesIO()
        yield content
        path.write_bytes(content.getvalue())
        return
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
def sentences_for_disk_errors(path: AnyPath) -> Iterator[None]:
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


def sync(folder: AnyPath) -> None:
    """Sync a folder's directory entries to disk, so that a rename survives a power failure."""
    if is_remote(folder):
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems cannot sync a folder.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_new(path: AnyPath, content: bytes) -> bool:
    """Create a file unless there is one; of several processes, one succeeds. Its folder is created if it is missing.

    Raises:
        UserError: The disk is full or cannot be written.
    """
    with sentences_for_disk_errors(path):
        for _ in range(_ATTEMPTS):
            try:
                if is_remote(path):
                    path.fs.pipe_file(path.path, content, mode="create")  # type: ignore[attr-defined]
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with path.open("xb") as file:
                        file.write(content)
                return True
            except FileExistsError:
                return False
            except FileNotFoundError:
                # Another process has just removed the empty folder.
                continue
    raise UserError(f"{path} cannot be created: its folder is removed again and again; give another path.")


def create_folder(folder: Path, name: str, content: bytes) -> bool:
    """Create a folder with one file in it, both at once, unless it is there; of several processes, one succeeds.

    Raises:
        UserError: The disk is full or cannot be written.
    """
    if folder.exists():
        return False
    with sentences_for_disk_errors(folder):
        unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".partial"))
        try:
            os.chmod(unfinished, 0o777 & ~UMASK)
            write_bytes(unfinished / name, content)
            # Fails if there is a folder that is not empty.
            os.rename(unfinished, folder)
            sync(folder.parent)
        except BaseException as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            if isinstance(error, OSError) and folder.exists():
                return False
            raise
    return True


def read_bytes(path: AnyPath) -> bytes:
    """Read a file that another process may replace meanwhile: its old content or its new one.

    Raises:
        FileNotFoundError: There is none.
    """
    return bytes(path.fs.cat_file(path.path)) if is_remote(path) else path.read_bytes()  # type: ignore[attr-defined]


def modified(path: AnyPath) -> float:
    """Return when a file was last written, in seconds since 1970, by the clock of where it lies.

    Raises:
        FileNotFoundError: There is none.
    """
    if not is_remote(path):
        return path.stat().st_mtime
    return float(path.fs.modified(path.path).timestamp())  # type: ignore[attr-defined]


def write_bytes(path: AnyPath, content: bytes) -> None:
    """Write bytes atomically."""
    with replace_file(path) as file:
        file.write(content)


def write_text(path: AnyPath, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode("utf-8"))
