"""Unpack archives of pictures into their folders: verified, bounded, and whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import filecmp
import json
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from struct import error as struct_error

from probing.errors import UserError
from probing.files import write_text
from probing.preferences.archives.members import FETCH_AGAIN, MARKER, ArchiveFault, read_members, safe_name
from probing.preferences.archives.parts import STAGING, JoinedFiles, find_archives, order_parts

_VERSION = 1
_READERS = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    struct_error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
"""Errors of tarfile, zipfile and the decompressors on damaged archives (RuntimeError includes RecursionError and
NotImplementedError)."""


def unpack(root: Path) -> None:
    """Unpack every archive below a folder into the folder of the archive, also archives in several parts.

    Each archive is unpacked into a temporary folder and read to its end; then its files are moved, and a marker
    ``<archive>.unpacked`` is written last. The marker lists the archive's parts (name, size, time of change) and the
    unpacked files (name, size). An archive is unpacked again if its parts changed or a file is missing or has another
    size; a changed file of the same size is not noticed. Archives inside archives stay packed.

    Raises:
        UserError: An archive is damaged, a part is missing, a bound is exceeded, a file of another origin is in the
            way, or the disk is full; the message names the archive. The target folder is unchanged then.
    """
    archives = find_archives(root)
    markers = {archive: _read_marker(archive) for archive in archives}
    inner = {path for archive, marker in markers.items() if marker for path in marker.paths(archive)}
    archives = {archive: paths for archive, paths in archives.items() if not inner.issuperset(paths)}
    for archive in sorted(archives):
        with _sentences(archive), _locked(archive.parent):
            _remove_staging(archive)
            parts = order_parts(archive, (path for path in archives[archive] if path not in inner))
            # Another process may have unpacked it while this one waited for the lock.
            old = markers[archive] = _read_marker(archive)
            if old is None or not _is_done(archive, parts, old):
                of_others = {
                    path
                    for other, marker in markers.items()
                    if marker and other != archive
                    for path in marker.paths(other)
                }
                markers[archive] = _unpack_one(archive, parts, old, of_others)


@dataclass(frozen=True)
class _Marker:
    """A finished unpacking: the archive's parts as (name, size, nanoseconds), and the size of each unpacked file."""

    parts: tuple[tuple[str, int, int], ...]
    files: dict[str, int]

    def paths(self, archive: Path) -> Iterator[Path]:
        return (archive.parent / name for name in self.files)


def _marker_path(archive: Path) -> Path:
    return archive.with_name(archive.name + MARKER)


def _read_marker(archive: Path) -> _Marker | None:
    """Return the marker; None if there is none, or it is damaged or of an older version."""
    try:
        document = json.loads(_marker_path(archive).read_text("utf-8"))
        if document["version"] != _VERSION:
            return None
        files = {str(safe_name(name)): int(size) for name, size in document["files"].items()}
        return _Marker(tuple((str(name), int(size), int(time)) for name, size, time in document["parts"]), files)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, ArchiveFault):
        return None


def _identity(parts: list[Path]) -> tuple[tuple[str, int, int], ...]:
    return tuple((part.name, part.stat().st_size, part.stat().st_mtime_ns) for part in parts)


def _is_done(archive: Path, parts: list[Path], marker: _Marker) -> bool:
    if marker.parts != _identity(parts) or not marker.files:
        return False
    return all(_has_size(archive.parent / name, size) for name, size in marker.files.items())


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _unpack_one(archive: Path, parts: list[Path], old: _Marker | None, of_others: set[Path]) -> _Marker:
    """Unpack into a temporary folder, check all targets, move, write the marker."""
    folder = archive.parent
    identity = _identity(parts)
    staging = Path(tempfile.mkdtemp(dir=folder, prefix=f".{archive.name}{STAGING}"))
    try:
        free = shutil.disk_usage(folder).free
        with JoinedFiles(parts) as source:
            files = read_members(source, archive.suffix == ".zip", folder, staging, free)
        if _identity(parts) != identity:
            raise ArchiveFault("it changed while it was read", "give the same command again")
        replaceable = {folder / name for name in old.files} - of_others if old else set()
        moves = [name for name in sorted(files) if _must_move(staging / name, folder / name, folder, replaceable)]
        for path in sorted(staging.rglob("*")):
            if path.is_dir():
                (folder / path.relative_to(staging)).mkdir(exist_ok=True)
        for name in moves:
            os.replace(staging / name, folder / name)
        for path in sorted(replaceable - {folder / name for name in files}):
            if old and _has_size(path, old.files[str(path.relative_to(folder))]) and _is_inside(path, folder):
                path.unlink()
        # Files are not synced one by one (hours for a million): a file that a power failure cuts has another size.
        marker = _Marker(identity, files)
        document = {"version": _VERSION, "parts": marker.parts, "files": marker.files}
        write_text(_marker_path(archive), json.dumps(document, indent=0, sort_keys=True) + "\n")
        return marker
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _must_move(new: Path, target: Path, folder: Path, replaceable: set[Path]) -> bool:
    """Return whether a file must be moved to its target; False if the target has the same content.

    Raises:
        ArchiveFault: The target exists with content that is not from this archive.
    """
    if not _is_inside(target, folder):
        raise ArchiveFault(f"{target.parent} is a link to another folder", "replace the link by a folder")
    for parent in target.parents:
        if parent == folder:
            break
        if parent.exists() and not parent.is_dir():
            raise ArchiveFault(f"{parent} is a file where it has a folder", "move that file away")
    if not os.path.lexists(target):
        return True
    if target.is_file():
        if filecmp.cmp(new, target, shallow=False):
            return False
        if target in replaceable and not target.is_symlink():
            return True
    raise ArchiveFault(f"{target} exists with other content", "move that file away or delete the archive")


def _is_inside(path: Path, folder: Path) -> bool:
    return path.parent.resolve().is_relative_to(folder.resolve())


def _remove_staging(archive: Path) -> None:
    """Remove files that killed processes left; under the lock, so no running process owns them."""
    for path in archive.parent.iterdir():
        if path.name.startswith(f".{archive.name}{STAGING}") and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name.startswith(f".{_marker_path(archive).name[:64]}.") and path.suffix == ".partial":
            path.unlink()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time unpack into a folder; the lock ends with its process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems cannot lock a folder.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _sentences(archive: Path) -> Iterator[None]:
    """Turn every error of an unpacking into a :class:`UserError` that names the archive."""
    try:
        yield
    except UserError:
        raise
    except ArchiveFault as error:
        raise UserError(f"{archive} cannot be unpacked ({error}); {error.fix}.") from error
    except _READERS as error:
        reason = getattr(error, "strerror", None) or str(error)
        problem, fix = " ".join(reason.split())[:200] or type(error).__name__, FETCH_AGAIN
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"The disk of {archive} is full; free some space and give the same command again."
            ) from error
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            fix = "make its folder writable, or copy it to one that is"
        elif isinstance(error, MemoryError):
            problem, fix = "too little memory", "free some memory, or delete it and fetch it again"
        raise UserError(f"{archive} cannot be unpacked ({problem}); {fix}.") from error
