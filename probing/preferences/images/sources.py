"""Sources of pictures: files of a folder, bytes inside Parquet files, or a function that draws them."""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from probing.errors import UserError
from probing.paths import is_url, path_of, url_of
from probing.preferences.images.decoding import MAX_BYTES, decode, name_errors, one_line
from probing.preferences.images.packed import PackedFiles, packed_files
from probing.preferences.images.preparation import upright
from probing.preferences.images.remote import file_stamp, missing_urls, read_url
from probing.preferences.tables.parquet_file import opened, picture_bytes

_CACHED_ROW_GROUPS = 4


class ImageSource(Protocol):
    """Opens pictures by the names that the table of items gives them.

    Attributes:
        can_be_bad: Whether a picture may be missing or unreadable; then all are opened once before anything is
            computed. False for pictures that a function draws.
        location: Where names are looked up, such as a folder.
    """

    can_be_bad: bool

    @property
    def location(self) -> str: ...

    def open(self, name: str, record: str) -> Image.Image:
        """Open and decode a picture; may be called from several threads.

        Returns:
            An upright picture of mode RGB or RGBA, without metadata, fully decoded.

        Raises:
            UserError: It is missing, empty, cut off, too large, or no picture; the message has its name and record.
        """
        ...

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return the names of missing pictures, without opening any."""
        ...

    def stamp(self, name: str) -> str | None:
        """Return a cheap identity of a picture, without opening it; may be called from several threads.

        Equal stamps mean the same picture. Different stamps, or None (it is missing, or there is no cheap identity),
        mean that the pixels must be compared.
        """
        ...


class ImageFolder:
    """Pictures that are files, members of archives below the folder, or at URLs.

    Names are paths relative to the folder, absolute, or URLs. A file that is not there is looked for in the tar and zip
    archives, as if they were unpacked beside themselves.

    Args:
        root: The folder; or a URL that names are joined to.
        archives: Whether to look into archives.
    """

    can_be_bad = True

    def __init__(self, root: Path, *, archives: bool = True) -> None:
        self.root = root
        self._url = url_of(root)
        self._archives = archives

    @cached_property
    def _packed(self) -> PackedFiles:
        return packed_files(path_of(self.root)) if self._archives else PackedFiles((), self.root)

    @property
    def location(self) -> str:
        return self._url or str(self.root.absolute())

    def open(self, name: str, record: str) -> Image.Image:
        where = self._url_of(name) or str(self.root / name)
        try:
            data = self._read(name)
        except FileNotFoundError:
            raise UserError(f"{one_line(where)} of record {record!r} is missing; check --data-root.") from None
        except (OSError, ValueError, MemoryError) as error:
            # The message of the system repeats the path.
            reason = getattr(error, "strerror", None) or one_line(str(error))
            raise UserError(
                f"{one_line(where)} of record {record!r} cannot be read ({reason}); check the disk."
            ) from error
        return decode(data, where, record)

    def _read(self, name: str) -> bytes:
        url, path = self._url_of(name), self.root / name
        try:
            if url is not None:
                return read_url(url)
            # Opening a pipe would block.
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise OSError("it is no file")
            with path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return self._packed.read(name)

    def stamp(self, name: str) -> str | None:
        return file_stamp(self._url_of(name) or str(self.root / name)) or self._packed.stamp(name)

    def missing(self, names: Iterable[str]) -> list[str]:
        # List each folder once: a check of each of a million files costs minutes on a network disk.
        listed: dict[str, set[str]] = {}
        missing, urls = [], {}
        for name in names:
            if url := self._url_of(name):
                urls[url] = name
                continue
            folder, file = os.path.split(name)
            if folder not in listed:
                listed[folder] = _files_of(self.root / folder)
            # A file system may ignore case, so a name that is not listed may exist.
            if file not in listed[folder] and not os.path.isfile(self.root / name):
                missing.append(name)
        missing += [urls[url] for url in missing_urls(urls)]
        return [name for name in missing if name not in self._packed] if missing else []

    def _url_of(self, name: str) -> str | None:
        if is_url(name):
            return name
        return None if self._url is None else f"{self._url}/{name}"


class ParquetImages:
    """Pictures that are bytes in a column of Parquet files; names are ``FILE#ROW#COLUMN``.

    A few row groups are cached, so that pictures opened in the files' order are read once.
    """

    can_be_bad = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._files: dict[str, tuple[pq.ParquetFile, np.ndarray]] = {}
        self._groups: OrderedDict[tuple[str, int, str], Any] = OrderedDict()
        self._stamps: dict[str, str | None] = {}

    @property
    def location(self) -> str:
        return str(self.root.absolute())

    @staticmethod
    def name(file: str, row: int, column: str) -> str:
        return f"{file}#{row}#{column}"

    def open(self, name: str, record: str) -> Image.Image:
        file, row, column = name.rsplit("#", 2)
        where = f"{column} in {self.root / file}"
        value = picture_bytes(self.value_at(file, int(row), column, record))
        if not value:
            raise UserError(
                f"Record {record!r} has no {one_line(column)} in {one_line(str(self.root / file))}; "
                "download the file again."
            )
        if not isinstance(value, bytes):
            raise UserError(
                f"{one_line(where)} of record {record!r} is of type {type(value).__name__}, expected the bytes of a "
                "picture; replace the file."
            )
        return decode(value, where, record)

    def value_at(self, file: str, row: int, column: str, record: str) -> Any:
        """Read one value of a column.

        Raises:
            UserError: The file is missing or damaged; the message has the record.
        """
        with name_errors(f"{column} in {self.root / file}", record), self._lock:
            return self._value(file, row, column)

    def stamp(self, name: str) -> str | None:
        file, row, column = name.rsplit("#", 2)
        if file not in self._stamps:
            self._stamps[file] = file_stamp(str(self.root / file))
        of_file = self._stamps[file]
        return None if of_file is None else f"{of_file}#{row}#{column}"

    def missing(self, names: Iterable[str]) -> list[str]:
        exists: dict[str, bool] = {}
        missing = []
        for name in names:
            file = name.rsplit("#", 2)[0]
            if file not in exists:
                exists[file] = (self.root / file).is_file()
            if not exists[file]:
                missing.append(name)
        return missing

    def _value(self, file: str, row: int, column: str) -> Any:
        if file not in self._files:
            table = opened(self.root / file)
            sizes = [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
            self._files[file] = (table, np.cumsum([0, *sizes]))
        table, starts = self._files[file]
        group = int(np.searchsorted(starts, row, side="right")) - 1
        key = (file, group, column)
        if key not in self._groups:
            self._groups[key] = table.read_row_group(group, columns=[column]).column(column)
            while len(self._groups) > _CACHED_ROW_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key][row - int(starts[group])].as_py()


class DrawnImages:
    """Pictures that a function draws when they are opened.

    Args:
        draw: Draws the picture of a name.
        version: Identity of ``draw``, which changes with the pictures; None if it has none.
        kinds: Kinds of heat map that ``heat_map`` gives.
        heat_map: Makes the heat map of a name and a kind; None where there is none.
    """

    can_be_bad = False
    location = "drawn"

    def __init__(
        self,
        draw: Callable[[str], Image.Image],
        version: str | None = None,
        *,
        kinds: tuple[str, ...] = (),
        heat_map: Callable[[str, str], np.ndarray | None] | None = None,
    ) -> None:
        self.draw = draw
        self.version = version
        self.kinds = kinds
        self._heat_map = heat_map

    def open(self, name: str, record: str) -> Image.Image:
        image = self.draw(name)
        with name_errors(f"Drawn picture {name!r}", record):
            return upright(image)

    def missing(self, names: Iterable[str]) -> list[str]:
        return []

    def stamp(self, name: str) -> str | None:
        return None if self.version is None else f"{self.version}/{name}"

    def heat_map(self, name: str, kind: str, record: str) -> np.ndarray | None:
        """Make a heat map, as :class:`probing.preferences.images.heat_maps.HeatMaps` states."""
        return None if self._heat_map is None else self._heat_map(name, kind)


def find_prefix(root: Path, names: Iterable[str], prefixes: tuple[str, ...]) -> str:
    """Find the folder below ``root`` that a benchmark's paths start from: it depends on how archives were unpacked.

    Returns:
        The first of ``prefixes`` under which the first picture exists; without one, the first of all, so that messages
        about missing pictures have the likeliest path.
    """
    first = next(iter(names), "")
    for prefix in prefixes:
        if (root / prefix / first).is_file():
            return prefix
    packed = packed_files(root)
    return next((prefix for prefix in prefixes if f"{prefix}{first}" in packed), prefixes[0])


def _files_of(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (OSError, ValueError):
        # A ValueError is an impossible file name, such as one with a null character.
        return set()
