"""Benchmarks from the Hugging Face hub: download, and unpack archives of pictures beside their files."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from probing.errors import UserError

_PART = re.compile(r"^(?P<archive>.+\.(tar\.gz|tar|tgz|zip))(\.(part)?-?[0-9a-z]{1,4})?$")
_UNPACKED = ".unpacked"


def fetch(name: str, dataset: str, patterns: Iterable[str]) -> Path:
    """Download the files of a data set, and unpack what is packed; what is there is kept.

    Args:
        name: The benchmark's name, for messages.
        dataset: Its id on the hub.
        patterns: Which files.

    Returns:
        A folder to read the benchmark from.

    Raises:
        UserError: No network, no right to it, or a damaged archive; with the ways out.
    """
    try:
        root = Path(huggingface_hub.snapshot_download(dataset, repo_type="dataset", allow_patterns=list(patterns)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"{name} could not be fetched from the hub's {dataset} ({said}); connect to the network, accept its terms "
            f"and log in with `hf auth login`, or give --data-root, a folder that holds its files."
        ) from error
    unpack(root)
    return root


def unpack(root: Path) -> None:
    """Unpack every archive below a folder into the archive's own folder, also archives in several parts; once.

    Raises:
        UserError: An archive is damaged, or the disk is full; with its name.
    """
    archives: dict[Path, list[Path]] = defaultdict(list)
    for path in sorted(root.rglob("*")):
        found = _PART.match(path.name)
        if found and path.is_file():
            archives[path.parent / found["archive"]].append(path)
    for archive, parts in archives.items():
        done = archive.with_name(archive.name + _UNPACKED)
        if done.exists():
            continue
        try:
            _extract(archive, parts)
        except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
            raise UserError(f"{archive} cannot be unpacked ({error}); delete it and fetch it again.") from error
        done.touch()


def _extract(archive: Path, parts: list[Path]) -> None:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(io.BytesIO(b"".join(p.read_bytes() for p in parts)) if len(parts) > 1 else parts[0]) as z:
            z.extractall(archive.parent)
        return
    with tarfile.open(fileobj=io.BufferedReader(_Joined(parts)), mode="r|*") as packed:
        packed.extractall(archive.parent, filter="data")


class _Joined(io.RawIOBase):
    """Several files read as one."""

    def __init__(self, parts: list[Path]) -> None:
        self._chunks = self._read_all(parts)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        if not self._rest:
            self._rest = next(self._chunks, b"")
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    @staticmethod
    def _read_all(parts: list[Path]) -> Iterator[bytes]:
        for part in parts:
            with part.open("rb") as file:
                while chunk := file.read(2**20):
                    yield chunk
