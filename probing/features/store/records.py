"""The record of a run: which features are on disk, with checksums of their values and of their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from probing.errors import UserError
from probing.features.store.layout import RUNS, ArraySpec
from probing.features.store.sealed import read_document, write_document

_AT_ONCE = 2**24


@dataclass(frozen=True)
class RunRecord:
    """What one run has on disk.

    Attributes:
        rows: Items of the run that are written, counted from its first.
        checksums: For each array, by position of the noise level (one position for arrays without), the CRC-32C of
            each block's values of these rows, little-endian and in C order; None where nothing is written.
        files: Size in bytes and CRC-32C of each file of the run.
        items: ``item_id``, ``prompt_id`` and ``prompt_digest`` (hex) of these rows: a copy, to rebuild coordinates.
    """

    rows: int = 0
    checksums: dict[str, list[list[int] | None]] = field(default_factory=dict)
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    items: dict[str, list[str]] = field(default_factory=dict)

    def has(self, array: str, sigma: int) -> bool:
        return self.of(array, sigma) is not None

    def of(self, array: str, sigma: int) -> list[int] | None:
        """Return the checksums of an array at the noise level with this position; None where nothing is written."""
        found = self.checksums.get(array, [])
        return found[sigma] if sigma < len(found) else None

    def with_part(self, array: str, sigma: int, checksums: list[int] | None) -> RunRecord:
        """Return the record with one array at one noise level set, or removed by None."""
        positions = list(self.checksums.get(array, []))
        positions += [None] * (sigma + 1 - len(positions))
        positions[sigma] = checksums
        return RunRecord(self.rows, {**self.checksums, array: positions}, self.files, self.items)

    def is_whole(self, arrays: Sequence[ArraySpec], sigmas: int) -> bool:
        return all(self.has(array.name, s) for array in arrays for s in array.sigmas(sigmas))


def read_record(path: Path, run: int) -> RunRecord | None:
    """Read the record of a run; None where there is none.

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
            f"{folder} holds no record of a run ({error}); python -m probing.store repair mends it."
        ) from None
    if attributes.get("run") != run:
        raise UserError(
            f"{folder} holds the record of run {attributes.get('run')}, not of run {run}; "
            f"python -m probing.store repair mends it."
        )
    return record


def write_record(path: Path, run: int, record: RunRecord) -> None:
    files = {name: list(size_and_crc) for name, size_and_crc in record.files.items()}
    attributes = {"run": run, "rows": record.rows, "checksums": record.checksums, "files": files, "items": record.items}
    write_document(path / RUNS / str(run), attributes)


def checksums_of(values: np.ndarray, array: ArraySpec) -> list[int]:
    """Return the CRC-32C of each block's values, (row, block, …); of all values for an array without blocks."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    if array.blocks is None:
        return [checksum(little)]
    return [checksum(little[:, block]) for block in range(len(array.blocks))]


def checksum(values: np.ndarray) -> int:
    return int(google_crc32c.value(np.ascontiguousarray(values).view(np.uint8).reshape(-1)))


def file_checksum(path: Path) -> tuple[int, int]:
    """Return the size in bytes and the CRC-32C of a file."""
    size, crc = 0, 0
    with path.open("rb") as file:
        while piece := file.read(_AT_ONCE):
            size += len(piece)
            crc = google_crc32c.extend(crc, piece)
    return size, int(crc)


def summary(records: Mapping[int, RunRecord]) -> list[Any]:
    """Return what the digest of a store is made of: the values of every run, not the names or times of files."""
    left_out = {"image_stamp", "prompt_clip_tokens"}
    return [
        [run, record.rows, {name: sums for name, sums in sorted(record.checksums.items()) if name not in left_out}]
        for run, record in sorted(records.items())
    ]
