"""Records of runs: which features are on disk, with checksums of their values and of their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from probing.errors import UserError
from probing.features.store.documents import DOCUMENT, document_bytes, read_document, write_document
from probing.features.store.layout import RUNS, ArraySpec
from probing.files import create_folder
from probing.paths import AnyPath, is_remote

_CHUNK_BYTES = 2**24


@dataclass(frozen=True)
class RunRecord:
    """The features of one run on disk.

    Attributes:
        rows: Items of the run that are written, counted from its first.
        checksums: For each array, by position of the noise level (one position for arrays without), the CRC-32C of
            each block's values of these rows, little-endian and in C order; None if nothing is written.
        files: Size in bytes and CRC-32C of each file of the run.
        items: ``item_id``, ``prompt_id`` and ``prompt_digest`` (hex) of these rows: a copy to restore coordinates from.
    """

    rows: int = 0
    checksums: dict[str, list[list[int] | None]] = field(default_factory=dict)
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    items: dict[str, list[str]] = field(default_factory=dict)

    def has(self, array: str, sigma: int) -> bool:
        """Return whether an array is written at the noise level with this position."""
        return self.of(array, sigma) is not None

    def of(self, array: str, sigma: int) -> list[int] | None:
        """Return the checksums of an array at the noise level with this position; None if nothing is written."""
        by_sigma = self.checksums.get(array, [])
        return by_sigma[sigma] if sigma < len(by_sigma) else None

    def with_part(self, array: str, sigma: int, checksums: list[int] | None) -> RunRecord:
        """Return the record with the checksums of one array at one noise level replaced, or removed by None."""
        by_sigma = list(self.checksums.get(array, []))
        by_sigma += [None] * (sigma + 1 - len(by_sigma))
        by_sigma[sigma] = checksums
        return replace(self, checksums={**self.checksums, array: by_sigma})

    def is_whole(self, arrays: Sequence[ArraySpec], sigmas: int) -> bool:
        """Return whether all these arrays are written at this many noise levels."""
        return all(self.has(array.name, s) for array in arrays for s in array.sigmas(sigmas))


def read_record(path: AnyPath, run: int) -> RunRecord | None:
    """Read the record of a run; None if there is none.

    Raises:
        UserError: It is damaged.
    """
    folder = path / RUNS / str(run)
    if not folder.exists():
        return None
    attributes = read_document(folder)
    try:
        files = {name: (int(size), int(crc)) for name, (size, crc) in attributes["files"].items()}
        record = RunRecord(int(attributes["rows"]), attributes["checksums"], files, attributes["items"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder} contains no record of a run ({error}); python -m probing.store repair restores it."
        ) from None
    if attributes.get("run") != run:
        raise UserError(
            f"{folder} contains the record of run {attributes.get('run')}, not of run {run}; "
            f"python -m probing.store repair restores it."
        )
    return record


def write_record(path: AnyPath, run: int, record: RunRecord) -> None:
    """Write the record of a run, whole or not at all; its folder appears with it, since one without it is damage."""
    files = {name: list(size_and_crc) for name, size_and_crc in record.files.items()}
    attributes = {"run": run, "rows": record.rows, "checksums": record.checksums, "files": files, "items": record.items}
    folder = path / RUNS / str(run)
    if is_remote(folder) or not create_folder(Path(folder), DOCUMENT, document_bytes(attributes)):
        write_document(folder, attributes)


def checksums_of(values: np.ndarray, array: ArraySpec) -> list[int]:
    """Return the CRC-32C of each block's values, (row, block, …); of all values for an array without blocks."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    if array.blocks is None:
        return [checksum(little)]
    return [checksum(little[:, block]) for block in range(len(array.blocks))]


def checksum(values: np.ndarray) -> int:
    """Return the CRC-32C of an array's bytes in C order."""
    return int(google_crc32c.value(np.ascontiguousarray(values).view(np.uint8).reshape(-1)))


def file_checksum(path: AnyPath) -> tuple[int, int]:
    """Return the size in bytes and the CRC-32C of a file."""
    size, crc = 0, 0
    with path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            size += len(piece)
            crc = google_crc32c.extend(crc, piece)
    return size, int(crc)


def summary(records: Mapping[int, RunRecord]) -> list[Any]:
    """Return the values of every run as the digest of a store includes them: without names or times of files."""
    left_out = {"image_stamp", "prompt_clip_tokens"}
    return [
        [run, record.rows, {name: sums for name, sums in sorted(record.checksums.items()) if name not in left_out}]
        for run, record in sorted(records.items())
    ]
