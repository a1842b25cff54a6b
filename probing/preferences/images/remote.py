"""Pictures at URLs, through fsspec: ``https://``, ``s3://``, ``hf://``, ``zip://a.png::s3://bucket/all.zip``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from probing.errors import UserError
from probing.paths import is_url
from probing.preferences.images.decoding import MAX_BYTES

_ATTEMPTS = 3
_PAUSE = 0.5
"""Seconds before the second attempt; twice as long before each further one."""
_Result = TypeVar("_Result")


def read_url(url: str) -> bytes:
    """Read a file at a URL, at most one byte more than the largest picture.

    A failure that may pass is tried again twice.

    Raises:
        FileNotFoundError: There is none.
        OSError: It cannot be read.
        UserError: The library of its protocol is not installed, or there is no such protocol.
    """

    def read(files: Any, path: str) -> bytes:
        data: bytes = files.cat_file(path, start=0, end=MAX_BYTES + 1)
        return data

    return _with_retries(url, read)


def file_stamp(path: str) -> str | None:
    """Return a file's size and times of change, or what a server says of it without reading it; None without these."""
    if is_url(path):
        return _stamp_of_url(path)
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"


def _stamp_of_url(url: str) -> str | None:
    try:
        about = _with_retries(url, lambda files, path: files.info(path))
    except (OSError, UserError, NotImplementedError):
        return None
    names = ("ETag", "etag", "LastModified", "mtime", "last_modified", "created", "blob_id", "sha256")
    known = [str(about[name]) for name in names if about.get(name) is not None]
    return "-".join([str(about.get("size")), *known]) if known else None


def missing_urls(urls: Iterable[str]) -> list[str]:
    """Return the URLs at which there is no file; a folder is listed once where its protocol can list."""
    listed: dict[str, set[str] | None] = {}
    missing = []
    for url in urls:
        folder, _, file = url.rpartition("/")
        if "::" in url:
            listed[folder] = None
        if folder not in listed:
            listed[folder] = _files_in(folder)
        names = listed[folder]
        if names is None:
            try:
                found = _with_retries(url, lambda files, path: files.exists(path))
            except OSError:
                found = False
        else:
            found = file in names
        if not found:
            missing.append(url)
    return missing


def _files_in(folder: str) -> set[str] | None:
    try:
        paths = _with_retries(folder, lambda files, path: files.ls(path, detail=False))
    except FileNotFoundError:
        return set()
    except (OSError, NotImplementedError, ValueError):
        return None
    return {str(path).rpartition("/")[2] for path in paths} if paths and not folder.startswith("http") else None


def _with_retries(url: str, work: Callable[[Any, str], _Result]) -> _Result:
    from fsspec.core import url_to_fs

    try:
        files, path = url_to_fs(url)
    except ImportError as error:
        raise UserError(f"{url:.200} needs a library that is not installed ({error}).") from error
    except ValueError as error:
        raise UserError(f"{url:.200} is no URL that can be opened ({error}); give another.") from error
    for attempt in range(_ATTEMPTS):
        try:
            return work(files, path)
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except OSError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(_PAUSE * 2**attempt)
    raise AssertionError("the last attempt returns or raises")
