"""Read records of JSON files as columns, in a stream: a million records need little more memory than their columns."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from probing.errors import UserError, listed, shown
from probing.preferences.tables.column_types import MOST_COLUMNS

Reading = Callable[[Any], Any]
"""Converts a field's value, or raises ValueError with the expected type."""

_CHUNK_CHARACTERS = 2**20
_LONGEST_RECORD = 2**26
_BATCH = 2**16
_BETWEEN = re.compile(r"[\s,]*")
_GAPS = (None, "", "null", "None", "nan", "NaN")
_EMPTY = pa.array([""])
_GAP_TEXTS = pa.array([gap for gap in _GAPS if gap is not None])


def text(value: Any) -> str:
    """Check a text that is not blank."""
    if not isinstance(value, str) or not value.strip() or not is_encodable(value):
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


def is_encodable(value: str) -> bool:
    """Return whether a text has no halves of surrogate pairs, which JSON allows and files and models do not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def number(value: Any) -> float | None:
    """Read a number, also from its text; a gap is None."""
    if value in _GAPS or value != value:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a number")
    try:
        result = float(value)
    except (ValueError, OverflowError):
        raise ValueError("a number") from None
    if not math.isfinite(result):
        raise ValueError("a finite number")
    return result


def whole_number(value: Any) -> int:
    """Read a whole number, also from its text."""
    result = number(value)
    if result is None or result != int(result):
        raise ValueError("a whole number")
    return int(result)


def many(reading: Reading, expected: str, *, least: int = 1, most: int | None = None) -> Reading:
    """Make a reading of lists, also from their JSON text.

    Args:
        reading: The reading of each entry.
        expected: Description of the list, for the message.
        least: Smallest number of entries.
        most: Largest number of entries.
    """

    def read(value: Any) -> list[Any]:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise ValueError(expected) from None
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if not isinstance(value, list) or len(value) < least or (most is not None and len(value) > most):
            raise ValueError(expected)
        try:
            return [reading(entry) for entry in value]
        except ValueError:
            raise ValueError(expected) from None

    return read


def fields(reading: Reading, expected: str) -> Reading:
    """Make a reading of named fields, also from their JSON text.

    Args:
        reading: The reading of each field's value.
        expected: Description of the fields, for the message.
    """

    def read(value: Any) -> dict[str, Any]:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise ValueError(expected) from None
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise ValueError(expected)
        try:
            return {name: None if entry is None else reading(entry) for name, entry in value.items()}
        except ValueError:
            raise ValueError(expected) from None

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
    others: Callable[[str], Reading] | None = None,
    record_id: str | None = None,
    prefix: str = "record",
) -> pa.Table:
    """Read a JSON list of records, or a file with one record a line, field by field.

    Args:
        path: The file.
        needed: Fields that every record has, each with its reading.
        also: Fields that a record may lack.
        others: The reading of any other field, which a record may lack; without it, other fields are left out.
        record_id: The field that names a record in messages; without it, the record's number does.
        prefix: Text before a record's number in messages.

    Returns:
        One row a record, with the fields that at least one record has.

    Raises:
        UserError: The file is missing, cut off or without records, or a record lacks a field or has an invalid value;
            the message names the record.
    """
    also = also or {}
    name = _RecordNames(path, record_id, prefix)
    fields: dict[str, None] = dict.fromkeys(needed)
    tables: list[dict[str, pa.Array]] = []
    count = 0
    for batch in _batches(path):
        readings = {**needed, **also}
        if others is not None:
            readings |= {field: others(field) for record in batch for field in record if field not in readings}
            _check_fields(path, [*fields, *readings])
        columns = {}
        for field, reading in readings.items():
            if field not in needed and not any(field in record for record in batch):
                continue
            fields[field] = None
            columns[field] = _column(batch, field, reading, field not in needed, count, name)
        tables.append(columns)
        count += len(batch)
    if not count:
        raise UserError(f"{path} contains no records; check the file.")
    sizes = [len(next(iter(columns.values()))) for columns in tables]
    whole = {}
    for field in fields:
        kind = _common_type(path, field, [columns[field].type for columns in tables if field in columns])
        whole[field] = pa.chunked_array(
            [
                columns[field].cast(kind) if field in columns else pa.nulls(size, kind)
                for columns, size in zip(tables, sizes, strict=True)
            ]
        )
    return pa.table(whole)


def _check_fields(path: Path, fields: list[str]) -> None:
    different = set(fields)
    if len(different) > MOST_COLUMNS:
        raise UserError(f"{path} has more than {MOST_COLUMNS:,} fields; check the file.")
    for field in different:
        if not field.strip() or not is_encodable(field):
            raise UserError(f"{path} has a field named {shown(field)}; name every field by a text.")


def _common_type(path: Path, field: str, types: list[pa.DataType]) -> pa.DataType:
    """Find the type that holds a field's values of all batches."""
    # A batch of gaps alone has no type.
    different = [kind for kind in dict.fromkeys(types) if kind != pa.null()]
    if len(different) > 1 and all(pa.types.is_floating(kind) or pa.types.is_integer(kind) for kind in different):
        return pa.float64()
    if len(different) > 1:
        raise _mixed(path, field, ", ".join(map(str, different)))
    return different[0] if different else pa.float64()


def _mixed(path: Path, field: str, types: str) -> UserError:
    return UserError(f"The field {field} of {path} holds values of several types ({types}); give it one type.")


@dataclass(frozen=True)
class _RecordNames:
    """Names the records of a file in messages."""

    path: Path
    field: str | None
    prefix: str

    def of(self, record: dict[str, Any], index: int) -> str:
        name = record.get(self.field) if self.field else None
        if isinstance(name, str | int):
            return f"Record {shown(name)} of {self.path}"
        return f"Record {shown(f'{self.prefix}{index}') if self.prefix else index} of {self.path}"


def _column(
    batch: list[dict[str, Any]], field: str, reading: Reading, may_lack: bool, before: int, names: _RecordNames
) -> pa.Array:
    quick = _quick(batch, field, reading)
    if quick is not None:
        return quick
    values: list[Any] = []
    for index, record in enumerate(batch):
        if field not in record:
            if not may_lack:
                named = names.of(record, before + index)
                raise UserError(f"{named} lacks the field {field}; it has {listed(record) or 'none'}.")
            values.append(None)
            continue
        try:
            values.append(reading(record[field]))
        except ValueError as error:
            named = names.of(record, before + index)
            raise UserError(f"{named} has the {field} {shown(record[field])}, expected {error}.") from None
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        types = dict.fromkeys(type(value).__name__ for value in values if value is not None)
        raise _mixed(names.path, field, ", ".join(types)) from None
    except OverflowError:
        raise UserError(
            f"The field {field} of {names.path} holds whole numbers of more than 64 bits; write them as text."
        ) from None


def _quick(batch: list[dict[str, Any]], field: str, reading: Reading) -> pa.Array | None:
    """Read a column at once if every value has the plain type; else return None, and each value is read by itself."""
    try:
        column = pa.array([record[field] for record in batch])
    except (KeyError, pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError, OverflowError):
        return None
    if (
        reading is number
        and _all_finite(column)
        and (pa.types.is_floating(column.type) or pa.types.is_integer(column.type))
    ):
        return column.cast(pa.float64())
    if reading in (text, label) and pa.types.is_string(column.type) and column.null_count == 0:
        trimmed = pc.utf8_trim_whitespace(column)
        if not pc.any(pc.is_in(trimmed, value_set=_GAP_TEXTS if reading is label else _EMPTY)).as_py():
            return column
    return None


def _all_finite(column: pa.Array) -> bool:
    return not pa.types.is_floating(column.type) or pc.all(pc.is_finite(column)).as_py() is not False


class _RepeatedField(Exception):
    """A field is repeated in a record: one of its values would be lost."""


def _fields_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise _RepeatedField(Counter(name for name, _ in pairs).most_common(1)[0][0])
    return record


def _batches(path: Path) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for record in _records(path):
        batch.append(record)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Decode one record after another, without the whole file in memory."""
    if not path.is_file():
        raise UserError(f"{path} is missing; --data-root is the folder that holds {path.name}.")
    decode = json.JSONDecoder(object_pairs_hook=_fields_once).raw_decode
    count = position = 0
    with path.open(encoding="utf-8-sig") as file:
        try:
            buffer = file.read(_CHUNK_CHARACTERS)
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
                except RecursionError:
                    raise UserError(f"Record {count} of {path} nests too many lists; check the file.") from None
                except _RepeatedField as error:
                    raise UserError(
                        f"Record {count} of {path} has the field {shown(error.args[0])} twice; keep one of them."
                    ) from None
                except ValueError as error:
                    rest = len(buffer) - position
                    # The record may continue; the amount read grows with it, so that no record is scanned many times.
                    more = file.read(max(_CHUNK_CHARACTERS, rest)) if rest < _LONGEST_RECORD else ""
                    if more:
                        buffer, position = buffer[position:] + more, 0
                        continue
                    if at_end and not listed:
                        return
                    problem = "ends in the middle of its list" if at_end else f"is no JSON at record {count} ({error})"
                    raise UserError(f"{path} {problem}; download it again.") from None
                if not isinstance(record, dict):
                    raise UserError(f"Record {count} of {path} is {shown(record)}, expected fields with values.")
                yield record
                count += 1
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is no UTF-8 text after record {count} ({error}); download it again.") from error


def _after(buffer: str, position: int) -> int:
    separator = _BETWEEN.match(buffer, position)
    return separator.end() if separator else position
