"""Small archives made by the standard library, as test inputs, and what unpacking must leave."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from probing.errors import UserError
from probing.preferences.archives.unpacking import unpack

FILES = {"images/1.png": b"\x89PNG" + bytes(range(256)) * 3, "images/2.png": b"second" * 200, "list.json": b"[1, 2]"}


def tar(files: Mapping[str, bytes] = FILES, **kind) -> bytes:
    """A plain tar; ``kind`` sets fields of every member's header."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in kind.items():
                setattr(info, field, value)
            packed.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def tar_gz(files: Mapping[str, bytes] = FILES, **kind) -> bytes:
    return gzip.compress(tar(files, **kind), mtime=0)


def zipped(files: Mapping[str, bytes] = FILES, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return stream.getvalue()


PACKERS = {"tar": tar, "tar.gz": tar_gz, "zip": zipped}


def write_parts(folder: Path, name: str, content: bytes, endings: list[str]) -> list[Path]:
    """Cut an archive into parts of equal size; one ending ``""`` writes it whole."""
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(content) // len(endings))
    paths = [folder / f"{name}{ending}" for ending in endings]
    for number, path in enumerate(paths):
        path.write_bytes(content[number * size : (number + 1) * size])
    return paths


def unpacked(folder: Path) -> dict[str, bytes]:
    """All files below a folder except archives, their parts and markers."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(mark in path.name for mark in (".tar", ".tgz", ".zip"))
    }


def refused(folder: Path, match: str) -> None:
    """Assert one sentence and an unchanged folder."""
    before = {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}
    with pytest.raises(UserError, match=match) as error:
        unpack(folder)
    message = str(error.value)
    assert "\n" not in message and message.endswith(".")
    assert {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")} == before
