"""Pictures inside tar and zip archives, read where they lie: nothing is unpacked."""

from __future__ import annotations

import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from probing.errors import UserError
from probing.preferences.archives.members import MAX_MEMBERS, ArchiveFault, safe_name
from probing.preferences.archives.parts import JoinedFiles, find_archives, order_parts
from probing.preferences.images.decoding import MAX_BYTES
from probing.preferences.images.remote import file_stamp

_COMPRESSED = (".gz", ".tgz")


@dataclass(frozen=True, slots=True)
class _Member:
    """Where a file lies: its archive, and in a tar its first byte, in a zip the number of its entry."""

    archive: int
    place: int
    size: int


class PackedFiles:
    """The files of all tar and zip archives below a folder, by the path that unpacking beside the archive gives.

    A compressed tar can be read from its start alone, and is left out. Of two files of one path the first counts.

    Args:
        archives: Each archive, and its parts in order.
        root: Folder that paths are relative to.

    Raises:
        UserError: An archive is damaged, or holds an impossible name.
    """

    def __init__(self, archives: tuple[tuple[Path, tuple[Path, ...]], ...], root: Path) -> None:
        self._archives = archives
        self._lock = threading.Lock()
        self._opened: dict[int, JoinedFiles | zipfile.ZipFile] = {}
        self._entries: dict[int, list[zipfile.ZipInfo]] = {}
        self._members: dict[str, _Member] = {}
        for number, (archive, parts) in enumerate(archives):
            folder = archive.parent.relative_to(root).as_posix()
            prefix = "" if folder == "." else f"{folder}/"
            try:
                members = self._zip(number, parts) if archive.suffix == ".zip" else self._tar(number, parts)
                for name, member in members:
                    self._members.setdefault(f"{prefix}{safe_name(name)}", member)
                    if len(self._members) > MAX_MEMBERS * len(archives):
                        raise ArchiveFault(f"it has more than {MAX_MEMBERS:,} files")
            except (ArchiveFault, tarfile.TarError, zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
                reason = " ".join(str(error).split())[:160]
                raise UserError(f"{archive} is damaged or cut short ({reason}); fetch it again.") from error

    def __contains__(self, name: str) -> bool:
        return os.path.normpath(name) in self._members

    def stamp(self, name: str) -> str | None:
        """Return the size and time of change of a file's archive, and its place in it; None if there is none."""
        member = self._members.get(os.path.normpath(name))
        if member is None:
            return None
        parts = [file_stamp(str(part)) for part in self._archives[member.archive][1]]
        return None if None in parts else "-".join(map(str, parts)) + f"@{member.place}"

    def read(self, name: str) -> bytes:
        """Read a file, at most one byte more than the largest picture; may be called from several threads.

        Raises:
            FileNotFoundError: No archive has it.
            OSError: The archive cannot be read.
        """
        member = self._members.get(os.path.normpath(name))
        if member is None:
            raise FileNotFoundError(name)
        with self._lock:
            opened = self._open(member.archive)
            if isinstance(opened, zipfile.ZipFile):
                with opened.open(self._entries[member.archive][member.place]) as file:
                    return file.read(MAX_BYTES + 1)
            opened.seek(member.place)
            wanted = min(member.size, MAX_BYTES + 1)
            data = b""
            while len(data) < wanted and (piece := opened.read(wanted - len(data))):
                data += piece
            return data

    def _open(self, number: int) -> JoinedFiles | zipfile.ZipFile:
        if number not in self._opened:
            archive, parts = self._archives[number]
            joined = JoinedFiles(parts)
            self._opened[number] = zipfile.ZipFile(joined) if archive.suffix == ".zip" else joined
        return self._opened[number]

    def _tar(self, number: int, parts: tuple[Path, ...]) -> Iterator[tuple[str, _Member]]:
        with tarfile.open(fileobj=JoinedFiles(parts), mode="r:") as tar:
            for member in tar:
                if member.isfile():
                    yield member.name, _Member(number, member.offset_data, member.size)
                # Otherwise tarfile keeps an object for every member.
                tar.members = []  # type: ignore[attr-defined]

    def _zip(self, number: int, parts: tuple[Path, ...]) -> Iterator[tuple[str, _Member]]:
        opened = zipfile.ZipFile(JoinedFiles(parts))
        self._opened[number] = opened
        self._entries[number] = opened.infolist()
        for place, entry in enumerate(self._entries[number]):
            if not entry.is_dir():
                yield entry.filename, _Member(number, place, entry.file_size)


def packed_files(root: Path) -> PackedFiles:
    """Return the files of the archives below a folder; they are listed again only when an archive has changed.

    Raises:
        UserError: An archive is damaged or lacks a part.
    """
    archives = {
        archive: tuple(order_parts(archive, parts))
        for archive, parts in find_archives(root).items()
        if archive.suffix not in _COMPRESSED
    }
    stamps = tuple(
        (archive, tuple((part, file_stamp(str(part))) for part in parts)) for archive, parts in sorted(archives.items())
    )
    return _listed(stamps, root)


@lru_cache(maxsize=4)
def _listed(stamps: tuple[tuple[Path, tuple[tuple[Path, str | None], ...]], ...], root: Path) -> PackedFiles:
    return PackedFiles(tuple((archive, tuple(part for part, _ in parts)) for archive, parts in stamps), root)
