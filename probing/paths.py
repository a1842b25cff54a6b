"""Paths of files, on this machine or at URLs such as ``s3://bucket/folder``; the latter through fsspec."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from probing.errors import UserError


class _HasFiles(type):
    def __instancecheck__(cls, path: Any) -> bool:
        return hasattr(path, "fs") and hasattr(path, "joinpath")


class RemotePath(metaclass=_HasFiles):
    """A ``UPath``, without the import of its library, which a plan of local files does not need."""


if TYPE_CHECKING:
    AnyPath = Path
else:
    AnyPath = Path | RemotePath
"""A path of :func:`path_of`: for a type checker a :class:`~pathlib.Path`, whose methods a ``UPath`` has."""

_URL = re.compile(r"[a-z][a-z0-9+.-]+://")
_PATH_OF_URL = re.compile(r"([a-z][a-z0-9+.-]+):/(?=[^/])")


def is_url(name: str) -> bool:
    """Return whether a name is a URL, not a path."""
    return _URL.match(name) is not None


def url_of(path: Any) -> str | None:
    """Return the URL that was given as a path; None for a path. A ``Path`` has lost one of its slashes."""
    text = _PATH_OF_URL.sub(r"\1://", str(path), count=1) if isinstance(path, Path) else str(path)
    return text.rstrip("/") if is_url(text) else None


def path_of(path: str | AnyPath) -> AnyPath:
    """Return a path that can be read: a :class:`~pathlib.Path`, or for a URL a ``UPath``, which has its methods.

    Raises:
        UserError: The library of the URL's protocol is not installed, or there is no such protocol.
    """
    url = url_of(path)
    if url is None:
        return cast(Path, path) if is_remote(path) else Path(path)
    if url.startswith("file://"):
        return Path(url.removeprefix("file://"))
    from upath import UPath

    try:
        # Other machines write there too: a listing of before is of no use.
        remote = UPath(url, use_listings_cache=False)
        # Opens the protocol's library.
        _ = remote.fs
    except ImportError as error:
        raise UserError(f"{url:.200} needs a library that is not installed ({error}).") from error
    except ValueError as error:
        raise UserError(f"{url:.200} is no URL that can be opened ({error}); give another.") from error
    return cast(Path, remote)


def openable(path: AnyPath) -> Any:
    """Return what PyArrow opens: a path, or an open file of a URL, of which only what is read is fetched."""
    return path.open("rb") if is_remote(path) else path


@contextmanager
def reached(path: AnyPath) -> Iterator[None]:
    """Turn any error of a protocol's library, such as missing credentials, into a :class:`UserError` with the URL."""
    try:
        yield
    except Exception as error:
        if not is_remote(path) or isinstance(error, UserError):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"{path} cannot be reached ({reason}); check the URL, the network and your credentials for it."
        ) from error


def is_remote(path: Any) -> bool:
    """Return whether a path of :func:`path_of` is at a URL, where nothing can be renamed, locked or synced."""
    return not isinstance(path, str | Path)
