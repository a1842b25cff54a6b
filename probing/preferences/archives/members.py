"""Read the members of tar and zip archives to the end, verify them, and write them into an empty folder within bounds.

Each format finds different damage:

- **zip**: a CRC over each file, names and sizes written twice, a count. All are compared, and the members must fill
  the file without a gap, so every relevant flipped byte is found.
- **tar.gz**: a CRC and a length over the whole stream, which is always read to its end.
- **tar**: a checksum over each header only. A flipped byte inside a file's content, or inside a long name (above 100
  bytes or not ASCII, stored like content), **cannot be found**. Flipped headers, missing or additional bytes can.
"""

from __future__ import annotations

import filecmp
import gzip
import io
import re
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from probing.preferences.archives.parts import JoinedFiles, is_staging

MARKER = ".unpacked"
"""Ending of the file next to an archive that records its finished unpacking."""
MAX_MEMBERS = 2_000_000
"""Largest number of files and folders in one archive. The largest benchmark has about one million pictures."""
MAX_MEMBER_BYTES = 8 * 2**30
"""Largest size of one file. Pictures have megabytes, the largest tables of the benchmarks one or two gigabytes."""
MAX_RATIO = 50
"""Largest number of unpacked bytes per byte of the archive. Compressed pictures have ratio 1, JSON 10 to 20."""
RATIO_ALLOWANCE = 16 * 2**20
"""Unpacked bytes that are allowed at any ratio: small archives of plain text compress well and are harmless."""
MAX_HEADER_BYTES = 2**20
"""Largest size of one tar header with its long names and attributes; tarfile reads it into memory at once."""

FETCH_AGAIN = "delete it and fetch it again"
BY_HAND = "unpack it into its folder with another tool and move the archive away"
_CHUNK = 2**20
_SMALL_CHUNK = 2**12
"""Compressed bytes read at once if zipfile does not bound their unpacked size (bzip2, LZMA)."""
_BLOCK = tarfile.BLOCKSIZE
_SECOND = f"second{MARKER}"
"""Temporary name of a repeated member; no member can have it."""


class ArchiveFault(Exception):
    """A fault of an archive and its fix; :func:`unpack` adds the archive's name."""

    def __init__(self, problem: str, fix: str = FETCH_AGAIN) -> None:
        super().__init__(problem)
        self.fix = fix


def read_members(source: JoinedFiles, is_zip: bool, target: Path, staging: Path, free: int) -> dict[str, int]:
    """Write all members of an archive into an empty folder.

    Args:
        source: The archive's bytes.
        is_zip: Whether it is a zip archive; else tar, compressed by gzip or not.
        target: The folder that the members will be moved to.
        staging: An empty folder to write to.
        free: Free bytes on the disk.

    Returns:
        Size by name of each file.

    Raises:
        ArchiveFault: The archive is damaged, exceeds a bound, or has a member that is no regular file or folder inside
            ``target``. Errors of tarfile, zipfile, zlib and lzma are raised too.
    """
    start = source.read(64)
    source.seek(0)
    if start.startswith(b"version https://git-lfs"):
        raise ArchiveFault("it is a pointer of git-lfs, not the archive", "fetch it by `git lfs pull`")
    sink = _Sink(staging, source.size, free)
    if is_zip:
        with io.BufferedReader(source) as buffered:
            _read_zip(buffered, source.size, sink)
    elif start.startswith(b"\x1f\x8b"):
        with io.BufferedReader(source, _CHUNK) as buffered, gzip.GzipFile(fileobj=buffered) as stream:
            _read_tar(stream, target, sink)
    else:
        with io.BufferedReader(source, _CHUNK) as buffered:
            _read_tar(buffered, target, sink)
    if not sink.files:
        raise ArchiveFault("it contains no files")
    return sink.files


def safe_name(name: str) -> PurePosixPath:
    """Return a member's relative path without ``.``.

    Raises:
        ArchiveFault: The path is absolute, has ``..``, or has bytes that data sets do not need.
    """
    shown = ascii(name[:200])
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise ArchiveFault(f"its member {shown} has an absolute path")
    if "\\" in name or any(ord(letter) < 32 or ord(letter) == 127 or 0xD800 <= ord(letter) < 0xE000 for letter in name):
        raise ArchiveFault(
            f"its member {shown} has a backslash, a control character or bytes that are not UTF-8", BY_HAND
        )
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ArchiveFault(f"its member {shown} is outside the folder")
    if any(part.endswith(MARKER) or is_staging(part) for part in parts):
        raise ArchiveFault(f"its member {shown} has a name that is reserved for unpacking", BY_HAND)
    return PurePosixPath(*parts)


class _Sink:
    """Write members into a folder and count them against the bounds; sizes in headers are not trusted."""

    def __init__(self, folder: Path, archive_bytes: int, free: int) -> None:
        self.files: dict[str, int] = {}
        self.limit = MAX_RATIO * archive_bytes + RATIO_ALLOWANCE
        self._folder = folder
        self._free = free
        self._members = 0
        self._total = 0

    def add_folder(self, name: str) -> None:
        self._count()
        self._make(safe_name(name), name)

    def add_file(self, name: str, size: int, chunks: Iterator[bytes]) -> None:
        """Write a file of ``size`` bytes; a second one of the same name must have the same content."""
        self._count()
        path = safe_name(name)
        shown = ascii(name[:200])
        if not path.parts or name.endswith("/"):
            raise ArchiveFault(f"its member {shown} is a file without a name")
        if not 0 <= size <= MAX_MEMBER_BYTES:
            raise ArchiveFault(f"its member {shown} has {size} bytes, allowed are {MAX_MEMBER_BYTES}", BY_HAND)
        self._check(self._total + size)
        self._make(path.parent, name)
        target = self._folder / path
        if target.is_dir():
            raise ArchiveFault(f"its member {shown} is both a file and a folder")
        repeated = str(path) in self.files
        output = self._folder / _SECOND if repeated else target
        written = 0
        with output.open("wb") as file:
            for chunk in chunks:
                written += len(chunk)
                self._total += len(chunk)
                if written > size:
                    break
                self._check(self._total)
                file.write(chunk)
        if written != size:
            raise ArchiveFault(f"its member {shown} does not have the {size} bytes of its header")
        if repeated:
            if not filecmp.cmp(output, target, shallow=False):
                raise ArchiveFault(f"its member {shown} is repeated with different content")
            output.unlink()
        self.files[str(path)] = size

    def _count(self) -> None:
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise ArchiveFault(f"it has more than {MAX_MEMBERS} members", BY_HAND)

    def _check(self, total: int) -> None:
        if total > self.limit:
            raise ArchiveFault(f"it grows to more than {self.limit} bytes, {MAX_RATIO} times its size", BY_HAND)
        if total > self._free:
            problem = f"it needs more than the {self._free} bytes that are free on its disk"
            raise ArchiveFault(problem, "free some space and give the same command again")

    def _make(self, path: PurePosixPath, name: str) -> None:
        try:
            (self._folder / path).mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ArchiveFault(f"its member {name[:200]!a} needs a folder where it has a file") from error


def _exactly(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    """Read ``size`` bytes in chunks; fewer if the source ends."""
    while size and (chunk := read(min(size, _CHUNK))):
        size -= len(chunk)
        yield chunk


class _Forward:
    """The input of tarfile: forward only, with bounded reads; the last block shows why tarfile stopped."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._position = 0
        self.last = b""

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise ArchiveFault(f"a header has {size} bytes, allowed are {MAX_HEADER_BYTES}")
        self.last = b"".join(_exactly(self.read_some, size))
        return self.last

    def read_some(self, size: int) -> bytes:
        chunk = self._stream.read(size)
        self._position += len(chunk)
        if self._position > self._limit:
            raise ArchiveFault(f"it grows to more than {self._limit} bytes, {MAX_RATIO} times its size", BY_HAND)
        return chunk

    def seek(self, position: int) -> None:
        if position < self._position:
            raise ArchiveFault("a header has an impossible size")
        for _ in _exactly(self.read_some, position - self._position):
            pass


def _read_tar(stream: Any, target: Path, sink: _Sink) -> None:
    forward = _Forward(stream, sink.limit)
    file: Any = forward
    with tarfile.TarFile(fileobj=file, mode="r", errorlevel=2, ignore_zeros=False) as packed:
        while (member := packed.next()) is not None:
            # tarfile keeps a list of members, which would fill the memory.
            packed.members.clear()  # type: ignore[attr-defined]
            shown = ascii(member.name[:200])
            if member.isdir():
                sink.add_folder(member.name)
            elif member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse():
                safe_name(member.name)
                tarfile.data_filter(member, str(target))
                forward.seek(member.offset_data)
                sink.add_file(member.name, member.size, _exactly(forward.read_some, member.size))
            else:
                raise ArchiveFault(f"its member {shown} is no regular file or folder", BY_HAND)
    # tarfile also stops, without an error, at a bad header or at the end of the file.
    if len(forward.last) < _BLOCK:
        raise ArchiveFault("it is cut: the two zero blocks at a tar's end are missing")
    if any(forward.last):
        raise ArchiveFault(f"the header at byte {forward.tell() - _BLOCK} is damaged")
    rest = 0
    while chunk := forward.read_some(_CHUNK):
        rest += len(chunk)
        if any(chunk):
            raise ArchiveFault("more bytes follow its end")
    if rest < _BLOCK:
        raise ArchiveFault("it is cut: the second of the two zero blocks at a tar's end is missing")


_ENCRYPTED = 0x1 | 0x40 | 0x2000
_DESCRIPTOR = 0x8
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def _read_zip(file: BinaryIO, size: int, sink: _Sink) -> None:
    count, start = _find_directory(file, size)
    if count > MAX_MEMBERS:
        raise ArchiveFault(f"it has {count} members, allowed are {MAX_MEMBERS}", BY_HAND)
    with zipfile.ZipFile(file) as packed:
        members = packed.infolist()
        for member in members:
            shown = ascii(member.orig_filename[:200])
            if member.flag_bits & _ENCRYPTED:
                raise ArchiveFault(f"its member {shown} is encrypted", BY_HAND)
            if member.compress_type not in _METHODS:
                raise ArchiveFault(f"its member {shown} is compressed by method {member.compress_type}", BY_HAND)
        if len(members) != count or packed.start_dir != start:
            raise ArchiveFault(f"it has {len(members)} members at byte {packed.start_dir}, not {count} at {start}")
        _check_layout(file, members, start)
        for member in members:
            _read_zip_member(packed, member, sink)


def _find_directory(file: BinaryIO, size: int) -> tuple[int, int]:
    """Return a zip's number of members, and the start of its list of members, which must end the file."""
    length = min(size, 22 + 0xFFFF)
    file.seek(size - length)
    tail = file.read(length)
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0 and (at + 22 > length or at + 22 + int.from_bytes(tail[at + 20 : at + 22], "little") != length):
        at = tail.rfind(b"PK\x05\x06", 0, at)
    if at < 0:
        raise ArchiveFault("it is no zip archive, or its end is cut or has bytes too many")
    disk, first_disk, here, count, length_of_list, start = struct.unpack("<4H2L", tail[at + 4 : at + 20])
    end = size - length + at
    if end >= 76:
        file.seek(end - 76)
        before = file.read(76)
        if before[56:60] == b"PK\x06\x07" and before[:4] == b"PK\x06\x06":
            end -= 76
            disk, first_disk, here, count, length_of_list, start = struct.unpack("<2L4Q", before[16:56])
    if disk or first_disk or here != count:
        raise ArchiveFault("it is one volume of several", "join the volumes with another tool")
    if start + length_of_list != end:
        raise ArchiveFault("its list of members is not at the position that its end gives")
    return count, start


def _check_layout(file: BinaryIO, members: list[zipfile.ZipInfo], start: int) -> None:
    """Compare each member's header with the list, and require that members fill the file without a gap."""
    at = 0
    for member in sorted(members, key=lambda one: one.header_offset):
        shown = ascii(member.orig_filename[:200])
        if member.header_offset != at:
            raise ArchiveFault(f"bytes {at} to {member.header_offset} belong to no member, before {shown}")
        file.seek(at)
        header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise ArchiveFault(f"the header of its member {shown} is damaged")
        flags, method = struct.unpack("<2H", header[6:10])
        crc, packed_size, file_size, name_length, extra_length = struct.unpack("<3L2H", header[14:30])
        if flags != member.flag_bits or method != member.compress_type:
            raise ArchiveFault(f"the two headers of its member {shown} differ")
        if not flags & _DESCRIPTOR and (
            crc != member.CRC
            or packed_size not in (member.compress_size, 0xFFFFFFFF)
            or file_size not in (member.file_size, 0xFFFFFFFF)
        ):
            raise ArchiveFault(f"the two headers of its member {shown} differ")
        at += 30 + name_length + extra_length + member.compress_size
        if flags & _DESCRIPTOR:
            at += _descriptor_length(file, at, member)
    if at != start:
        raise ArchiveFault(f"bytes {at} to {start} belong to no member")


def _descriptor_length(file: BinaryIO, at: int, member: zipfile.ZipInfo) -> int:
    """Compare the sizes and CRC behind a member's content with the list, and return their length."""
    file.seek(at)
    content = file.read(24)
    for sizes in ("<LQQ", "<LLL"):
        if max(member.compress_size, member.file_size) > 0xFFFFFFFF and sizes == "<LLL":
            continue
        expected = struct.pack(sizes, member.CRC, member.compress_size, member.file_size)
        for descriptor in (b"PK\x07\x08" + expected, expected):
            if content.startswith(descriptor):
                return len(descriptor)
    raise ArchiveFault(f"the sizes behind its member {member.orig_filename[:200]!a} are damaged")


def _read_zip_member(packed: zipfile.ZipFile, member: zipfile.ZipInfo, sink: _Sink) -> None:
    # zipfile cuts a name at a zero byte; check the original name.
    name = member.orig_filename
    kind = stat.S_IFMT(member.external_attr >> 16)
    is_folder = name.endswith("/")
    if kind not in (0, stat.S_IFDIR if is_folder else stat.S_IFREG):
        raise ArchiveFault(f"its member {name[:200]!a} is no regular file or folder", BY_HAND)
    if is_folder:
        if member.file_size:
            raise ArchiveFault(f"its member {name[:200]!a} is a folder with content")
        sink.add_folder(name)
        return
    chunk = _CHUNK if member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) else _SMALL_CHUNK
    with packed.open(member) as content:
        sink.add_file(name, member.file_size, iter(lambda: content.read(chunk), b""))
