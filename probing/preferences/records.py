"""Records of JSON files as columns, read in a stream: a million of them need little more than their columns."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from probing.errors import UserError

Reading = Callable[[Any], Any]
"""Brings a field's value to its type, or raises ValueError with what it should be."""

_AT_ONCE = 2**20
_LONGEST_RECORD = 2**26
_BATCH = 2**16
_BETWEEN = re.compile(r"[\s,]*")
_GAPS = (None, "", "null", "None", "nan", "NaN")
_EMPTY = pa.array([""])
_GAP_TEXTS = pa.array([gap for gap in _GAPS if gap is not None])


def text(value: Any) -> str:
    """Read a text that says something."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text")
    return value


def identifier(value: Any) -> str:
    """Read an id: a text, or a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text(value)


def label(value: Any) -> str | None:
    """Read a text that may be missing."""
    return None if value in _GAPS else text(value)


def number(value: Any) -> float | None:
    """Read a number, also from its text; a gap is None."""
    if value in _GAPS or value != value:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a number")
    try:
        return float(value)
    except ValueError:
        raise ValueError("a number") from None


def whole_number(value: Any) -> int:
    """Read a whole number, also from its text."""
    read = number(value)
    if read is None or read != int(read):
        raise ValueError("a whole number")
    return int(read)


def many(reading: Reading, said: str, *, least: int = 1, most: int | None = None) -> Reading:
    """Make a reading of lists, also from their JSON text.

    Args:
        reading: Of each entry.
        said: What the list should be, for the message.
        least: Fewest entries.
        most: Most entries.
    """

    def read(value: Any) -> list:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                raise ValueError(said) from None
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if not isinstance(value, list) or len(value) < least or (most is not None and len(value) > most):
            raise ValueError(said)
        try:
            return [reading(entry) for entry in value]
        except ValueError:
            raise ValueError(said) from None

    return read


def optional(reading: Reading) -> Reading:
    """Let a field's value be missing."""

    def read(value: Any) -> Any:
        return None if value is None or (isinstance(value, str) and value in _GAPS) else reading(value)

    return read


def read_json(
    path: Path,
    needed: Mapping[str, Reading],
    also: Mapping[str, Reading] | None = None,
    *,
    record_id: str | None = None,
    prefix: str = "record",
) -> pa.Table:
    """Read a JSON list of records, or a file with one record a line, field by field.

    Args:
        path: The file.
        needed: Fields that every record has, each with its reading.
        also: Fields that a record may lack.
        record_id: The field that names a record in messages; its number where there is none.
        prefix: What a record's number is put after in messages.

    Returns:
        One row a record, with the fields that at least one record has; others of the file are left out.

    Raises:
        UserError: The file is missing, is cut off, holds no records, or a record lacks a field or holds what cannot be
            read; with the record.
    """
    also = also or {}
    readings = {**needed, **also}
    seen: dict[str, None] = dict.fromkeys(needed)
    tables: list[dict[str, pa.Array]] = []
    count = 0
    for batch in _batches(path):
        columns = {}
        for field, reading in readings.items():
            if field in also and not any(field in record for record in batch):
                continue
            seen[field] = None
            columns[field] = _column(path, batch, field, reading, field in also, count, record_id, prefix)
        tables.append(columns)
        count += len(batch)
    if not count:
        raise UserError(f"{path} holds no records; check the file.")
    sizes = [len(next(iter(columns.values()))) for columns in tables]
    whole = {}
    for field in seen:
        kinds = [columns[field].type for columns in tables if field in columns]
        # Gaps alone have no type of their own.
        kind = next((kind for kind in kinds if kind != pa.null()), pa.float64())
        whole[field] = pa.chunked_array(
            [
                columns[field].cast(kind) if field in columns else pa.nulls(size, kind)
                for columns, size in zip(tables, sizes, strict=True)
            ]
        )
    return pa.table(whole)


def _column(
    path: Path,
    batch: list[dict],
    field: str,
    reading: Reading,
    may_lack: bool,
    before: int,
    record_id: str | None,
    prefix: str,
) -> pa.Array:
    quick = _quick(batch, field, reading)
    if quick is not None:
        return quick
    values: list[Any] = []
    for index, record in enumerate(batch):
        if field not in record:
            if not may_lack:
                named = _named(record, record_id, prefix, before + index)
                raise UserError(f"{named} of {path} lacks the field {field}; it has {', '.join(record) or 'none'}.")
            values.append(None)
            continue
        try:
            values.append(reading(record[field]))
        except ValueError as error:
            named = _named(record, record_id, prefix, before + index)
            raise UserError(f"{named} of {path} has the {field} {_short(record[field])}, expected {error}.") from None
    return pa.array(values)


def _quick(batch: list[dict], field: str, reading: Reading) -> pa.Array | None:
    """Read a column at once where every value is plainly of its type; None where each must be looked at."""
    try:
        column = pa.array([record[field] for record in batch])
    except (KeyError, pa.ArrowInvalid, pa.ArrowTypeError):
        return None
    if reading is number and (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        return column.cast(pa.float64())
    if reading in (text, label) and pa.types.is_string(column.type) and column.null_count == 0:
        trimmed = pc.utf8_trim_whitespace(column)
        if not pc.any(pc.is_in(trimmed, value_set=_GAP_TEXTS if reading is label else _EMPTY)).as_py():
            return column
    return None


def _named(record: dict, record_id: str | None, prefix: str, index: int) -> str:
    name = record.get(record_id) if record_id else None
    return f"Record {name!r}" if isinstance(name, str | int) else f"Record '{prefix}{index}'"


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 80 else f"{said[:77]}…"


def _batches(path: Path) -> Iterator[list[dict]]:
    batch: list[dict] = []
    for record in _records(path):
        batch.append(record)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _records(path: Path) -> Iterator[dict]:
    """Decode one record after another; the file is never whole in memory."""
    if not path.is_file():
        raise UserError(f"{path} is missing; --data-root is the folder that holds {path.name}.")
    decode = json.JSONDecoder().raw_decode
    count = position = 0
    with path.open(encoding="utf-8-sig") as file:
        try:
            buffer = file.read(_AT_ONCE)
            position = _after(buffer, 0)
            listed = buffer[position : position + 1] == "["
            position += listed
            while True:
                position = _after(buffer, position)
                at_end = position == len(buffer)
                if not at_end and listed and buffer[position] == "]":
                    return
                try:
                    record, position = decode(buffer, position)
                except ValueError as error:
                    rest = len(buffer) - position
                    # The record may go on; what is read grows with it, so that no record is scanned many times.
                    more = file.read(max(_AT_ONCE, rest)) if rest < _LONGEST_RECORD else ""
                    if more:
                        buffer, position = buffer[position:] + more, 0
                        continue
                    if at_end and not listed:
                        return
                    said = "ends in the middle of its list" if at_end else f"is no JSON at record {count} ({error})"
                    raise UserError(f"{path} {said}; download it again.") from None
                if not isinstance(record, dict):
                    raise UserError(f"Record {count} of {path} is {_short(record)}, expected fields with values.")
                yield record
                count += 1
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is no UTF-8 text after record {count} ({error}); download it again.") from error


def _after(buffer: str, position: int) -> int:
    found = _BETWEEN.match(buffer, position)
    return found.end() if found else position
