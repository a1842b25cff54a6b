"""Find the files of an archive, single or in numbered parts, and read them as one file."""

from __future__ import annotations

import errno
import io
import os
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, BinaryIO, cast

from probing.errors import UserError
from probing.paths import is_remote

STAGING = ".unpacking-"
"""Second half of the name of a temporary folder: ``.images.zip.unpacking-x1y2``."""
_NAME = re.compile(
    r"^(?P<archive>.+\.(?:tar\.gz|tar|tgz|zip))"
    r"(?P<ending>[.-](?:part)?[-_]?(?P<number>[0-9]{1,5}|[a-z]{1,4})(?:-of-(?P<total>[0-9]{1,5}))?)?$"
)
_NO_PART = ("gz", "xz", "asc")
"""Endings of other files that could be the letters of a part."""


def is_staging(name: str) -> bool:
    """Return whether a folder's name is that of a temporary folder of an unpacking."""
    return name.startswith(".") and STAGING in name


def find_archives(root: Path) -> dict[Path, list[Path]]:
    """Return the files of every archive below a folder, each list not yet in order; temporary folders are skipped."""
    archives: dict[Path, list[Path]] = defaultdict(list)
    # Path.walk is not in Python 3.11.
    walk: Any = cast(Any, root).walk() if is_remote(root) else os.walk(root)
    for place, folders, files in walk:
        folder = place if is_remote(root) else Path(place)
        folders[:] = sorted(name for name in folders if not is_staging(name))
        for name in sorted(files):
            match = _NAME.match(name)
            if match and _is_part(match) and (folder / name).is_file():
                archives[folder / match["archive"]].append(folder / name)
    return dict(archives)


def _is_part(match: re.Match[str]) -> bool:
    """Return whether an ending numbers a part: digits, ``a``…``zz``, ``aaa``…``azz``; not ``.md5`` or ``.json``."""
    number = match["number"]
    if number is None or number.isdigit():
        return True
    return number not in _NO_PART and (len(number) < 3 or number[0] == "a")


@dataclass(frozen=True)
class _Part:
    path: Path
    ending: str
    style: tuple[str, int]
    number: int
    total: int | None


def order_parts(archive: Path, paths: Iterable[Path]) -> list[Path]:
    """Return the files of an archive in the order of their numbers.

    Usual numberings are read: ``.000``, ``.part1``, ``.part-aa``, ``.aa``, ``-00000`` and ``-00000-of-00005``; digits
    from 0 or 1, letters from ``a``. Names without ``-of-`` cannot show that the last part is missing; reading
    the archive does.

    Raises:
        UserError: A part is missing or repeated, numberings are mixed, or the whole archive is next to its parts.
    """
    paths = sorted(paths)
    parts = sorted((_part(path) for path in paths if path != archive), key=lambda part: part.number)
    if not parts:
        return paths
    if archive in paths:
        if parts[0].number > 1:
            return [archive]
        raise _refusal(archive, f"{parts[0].path.name} is next to the whole archive", "delete one of the two")
    if len({part.style for part in parts}) > 1:
        names = " and ".join(part.path.name for part in parts if part.style != parts[0].style or part is parts[0])
        raise _refusal(archive, f"its parts are numbered in different ways: {names}", "delete the wrong ones")
    numbers = [part.number for part in parts]
    for part, following in pairwise(parts):
        if part.number == following.number:
            problem = f"{part.path.name} and {following.path.name} have the same number"
            raise _refusal(archive, problem, "delete the wrong one")
    letters = not parts[0].style[1]
    first = 0 if letters or 0 in numbers or parts[0].total is not None else 1
    totals = {part.total for part in parts}
    last = max([*numbers, *(total + first - 1 for total in totals if total is not None)])
    if len(totals) > 1 or (parts[0].total is not None and last > first + parts[0].total - 1):
        raise _refusal(archive, "its parts disagree on how many there are", "delete the wrong ones")
    missing = [number for number in range(first, last + 1) if number not in set(numbers)]
    if missing:
        named = ", ".join(f"{archive.name}{_ending(parts[-1], number)}" for number in missing[:3])
        problem = f"missing: {named}" + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise _refusal(archive, problem, "fetch the missing parts")
    return [part.path for part in parts]


def _part(path: Path) -> _Part:
    match = _NAME.match(path.name)
    assert match is not None
    number, ending = match["number"], match["ending"]
    position = match.start("number") - match.start("ending")
    if number.isdigit():
        style, value = (ending[:position], 1), int(number)
    else:
        style, value = (f"{ending[:position]}{len(number)}", 0), 0
        for letter in number:
            value = value * 26 + ord(letter) - ord("a")
    return _Part(path, ending, style, value, None if match["total"] is None else int(match["total"]))


def _ending(pattern: _Part, number: int) -> str:
    """Return the ending of another part with the numbering of an existing one."""
    match = _NAME.match(pattern.path.name)
    assert match is not None
    old = match["number"]
    new = str(number).zfill(len(old) if old.startswith("0") or len(old) > 1 else 1)
    if not old.isdigit():
        letters = []
        for _ in old:
            number, letter = divmod(number, 26)
            letters.append(chr(ord("a") + letter))
        new = "".join(reversed(letters))
    start = match.start("number") - match.start("ending")
    return pattern.ending[:start] + new + pattern.ending[start + len(old) :]


def _refusal(archive: Path, problem: str, fix: str) -> UserError:
    return UserError(f"{archive} cannot be unpacked ({problem}); {fix} and give the same command again.")


class JoinedFiles(io.RawIOBase):
    """Several files read as one, with seek, one open at a time; nothing is joined in memory."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = list(paths)
        self._ends = list(accumulate(path.stat().st_size for path in self._paths))
        self._position = 0
        self._open: tuple[int, BinaryIO] | None = None

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return self._ends[-1] if self._ends else 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = offset + (0, self._position, self.size)[whence]
        if position < 0:
            # zipfile expects an OSError if an archive is shorter than its search.
            raise OSError(errno.EINVAL, f"position {position} is before the start")
        self._position = position
        return position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self.size:
            return 0
        number = bisect_right(self._ends, self._position)
        start = self._ends[number - 1] if number else 0
        if self._open is None or self._open[0] != number:
            self._close_part()
            path = self._paths[number]
            self._open = (number, path.open("rb") if is_remote(path) else path.open("rb", buffering=0))
        file = self._open[1]
        file.seek(self._position - start)
        data = file.read(min(len(buffer), self._ends[number] - self._position))
        if not data:
            raise EOFError(f"{self._paths[number].name} became shorter while it was read")
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._close_part()
        super().close()

    def _close_part(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None
