"""Read CSV files strictly: an ambiguous record is refused with its line, never guessed.

The format is RFC 4180: commas, one header, as many fields in every record as in the header, quotes around a field that
holds a comma, a quote or a line end, and quotes doubled inside. Text is UTF-8, with or without a byte order mark; lines
end in LF, CRLF or CR; blank lines between records hold no record.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from probing.errors import UserError, listed, shown
from probing.preferences.tables.column_types import MOST_COLUMNS

LONGEST_LINE = 2**24
"""Largest number of characters of a line, so that a file without line ends is not read whole."""
LONGEST_FIELD = 2**20
"""Largest number of characters of a quoted field: prompts have thousands; more is a quote that is never closed."""
_WHOLE_RECORD = re.compile(r"(?:F)(?:,(?:F))*+[\r\n]*".replace("F", r'"[^"]*+(?:""[^"]*+)*+"|[^",\r\n]*+'))
"""A strict record on one line: Python's own parser reads it correctly, several times faster than the parser below."""
_SHORT = 2**16
"""Largest number of characters for Python's own parser, which limits the size of fields."""
_BLANK = ("\n", "\r\n", "\r")
_DOUBLE = 'write a quote inside a field as "", and put the whole field in quotes'
_BACKSLASH = 'a quote inside a field is written as "", not with a backslash'


def read_csv(path: Path) -> dict[str, list[str]]:
    """Read a CSV file.

    Returns:
        The texts of each column, exactly as written, by the names of the header.

    Raises:
        UserError: The file is no strict CSV; the message names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _columns_of(path, file)
    except UnicodeDecodeError:
        raise UserError(f"{_line_of_bad_bytes(path)} is not UTF-8 text; save the file as UTF-8.") from None


def _columns_of(path: Path, file: TextIO) -> dict[str, list[str]]:
    records = _records(path, file)
    start, header = next(records, (1, []))
    _check_header(path, start, header)
    columns: list[list[str]] = [[] for _ in header]
    appends = [column.append for column in columns]
    width = len(header)
    for start, fields in records:
        if len(fields) != width:
            raise _wrong_count(path, start, fields, width)
        for append, field in zip(appends, fields, strict=True):
            append(field)
    return dict(zip(header, columns, strict=True))


def _check_header(path: Path, line: int, header: list[str]) -> None:
    if not header:
        raise UserError(f"{path} is empty, expected a header and records.")
    if len(header) > MOST_COLUMNS:
        raise UserError(f"{path} has {len(header):,} columns, expected at most {MOST_COLUMNS:,}; check its header.")
    for number, name in enumerate(header):
        if not name.strip():
            raise UserError(f"Line {line} of {path}: column {number + 1} of the header has no name; name every column.")
    repeated = [name for number, name in enumerate(header) if name in header[:number]]
    if repeated:
        raise UserError(f"{path} has the columns {listed(map(shown, repeated))} twice; name each column once.")


def _records(path: Path, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Split records into fields, with the line where each begins."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise UserError(f"Line {number} of {path} has more than {LONGEST_LINE:,} characters; check its line ends.")
        if "\0" in line:
            raise UserError(f"Line {number} of {path} holds a NUL character; save the file as text, in UTF-8.")
        if line in _BLANK:
            continue
        if '"' not in line:
            yield number, line.rstrip("\r\n").split(",")
            continue
        if len(line) < _SHORT and _WHOLE_RECORD.fullmatch(line):
            yield number, next(csv.reader((line,)))
            continue
        start = number
        reader = _QuotedRecord(path, file, line, number)
        yield start, reader.fields()
        number = reader.line_number


class _QuotedRecord:
    """Reads a record with quotes, which may go on over several lines."""

    def __init__(self, path: Path, file: TextIO, line: str, line_number: int) -> None:
        self._path, self._file = path, file
        self._line, self.line_number = line, line_number
        self._at = 0

    def fields(self) -> list[str]:
        fields = []
        while True:
            quoted = self._line.startswith('"', self._at)
            fields.append(self._quoted_field() if quoted else self._plain_field())
            if self._line[self._at : self._at + 1] != ",":
                return fields
            self._at += 1

    def _plain_field(self) -> str:
        end = self._line.find(",", self._at)
        field = self._line[self._at : end] if end >= 0 else self._line[self._at :].rstrip("\r\n")
        quote = field.find('"')
        if quote >= 0:
            hint = _BACKSLASH if field[quote - 1 : quote] == "\\" else _DOUBLE
            raise UserError(
                f"Line {self.line_number} of {self._path} has a quote inside the field {shown(field)}, which does not "
                f"begin with one; {hint}."
            )
        self._at += len(field)
        return field

    def _quoted_field(self) -> str:
        opened, parts, length = self.line_number, [], 0
        self._at += 1
        while True:
            quote = self._line.find('"', self._at)
            if quote < 0:
                parts.append(self._line[self._at :])
                length += len(parts[-1])
                self._next_line(opened, length)
                continue
            parts.append(self._line[self._at : quote])
            length += len(parts[-1])
            self._at = quote + 1
            if self._line.startswith('"', self._at):
                parts.append('"')
                self._at += 1
                continue
            if self._line[self._at : self._at + 1] not in ("", ",", "\r", "\n"):
                raise self._text_after_quote(opened, parts[-1])
            return "".join(parts)

    def _next_line(self, opened: int, length: int) -> None:
        line = self._file.readline(LONGEST_LINE + 1)
        if not line or length > LONGEST_FIELD:
            within = "" if not line else f" within {LONGEST_FIELD:,} characters"
            raise UserError(
                f"Line {opened} of {self._path} opens a quote that is not closed{within}; close it, or, for a quote "
                f"that is part of the text, {_DOUBLE}."
            )
        self.line_number += 1
        if len(line) > LONGEST_LINE:
            raise UserError(
                f"Line {self.line_number} of {self._path} has more than {LONGEST_LINE:,} characters; check its line "
                f"ends."
            )
        if "\0" in line:
            raise UserError(
                f"Line {self.line_number} of {self._path} holds a NUL character; save the file as text, in UTF-8."
            )
        self._line, self._at = line, 0

    def _text_after_quote(self, opened: int, before: str) -> UserError:
        rest = self._line[self._at :].rstrip("\r\n")
        where = "" if opened == self.line_number else f" in line {self.line_number}"
        hint = _BACKSLASH if before.endswith("\\") else f"close it before the comma, or {_DOUBLE}"
        return UserError(
            f"Line {opened} of {self._path} opens a quote, and text ({shown(rest)}) follows the next quote{where}; "
            f"{hint}."
        )


def _wrong_count(path: Path, line: int, fields: list[str], width: int) -> UserError:
    spanning = next((field for field in fields if "\n" in field or "\r" in field), None)
    if len(fields) > width:
        hint = "put fields that hold a comma in quotes"
    elif spanning is not None:
        hint = "a quote that opens here closes only on a later line"
    else:
        hint = "give every record all its fields"
    return UserError(
        f"Line {line} of {path} has {len(fields):,} {'field' if len(fields) == 1 else 'fields'}, and the header has "
        f"{width:,} columns; {hint}."
    )


def _line_of_bad_bytes(path: Path) -> str:
    """Name the first line that is no UTF-8, reading the file once more."""
    with path.open("rb") as file:
        number = 1
        for line in file:
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                number += line[: error.start].replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n")
                return f"Line {number} of {path}"
            number += line.replace(b"\r\n", b"\n").replace(b"\r", b"\n").count(b"\n")
    return str(path)
