"""Strict CSV: equal to Python's reader where it is plainly a table, refused with the line where it is not."""

from __future__ import annotations

import csv
import io
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from probing.errors import UserError
from probing.preferences.tables import column_types, csv_file
from probing.preferences.tables.csv_file import read_csv

HEADER = "prompt,chosen,rejected\n"


def read(tmp_path, content):
    path = tmp_path / "pairs.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_csv(path)


@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        ("a cat,b,c\n", ["a cat"]),
        ("a cat,b,c", ["a cat"]),
        ("a cat,b,c\n\n\n\n", ["a cat"]),
        ("a cat,b,c\n\nan owl,b,c\n", ["a cat", "an owl"]),
        ("007,b,c\nNA,b,c\n", ["007", "NA"]),
        (" a cat ,b,c\n", [" a cat "]),
        ('"a cat, 4k",b,c\n', ["a cat, 4k"]),
        ('"a ""big"" cat",b,c\n', ['a "big" cat']),
        ('"",b,c\n"""",b,c\n', ["", '"']),
        # A backslash is a letter like any other.
        ('C:\\new,b,c\n"a\\",b,c\n"\\n \\""",b,c\n', ["C:\\new", "a\\", '\\n \\"']),
        ("it's 50% of {} $x$,b,c\n", ["it's 50% of {} $x$"]),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_fields_are_read_exactly_as_written(tmp_path, content, prompts, line_end):
    for mark in ("", "\ufeff"):
        assert read(tmp_path, mark + (HEADER + content).replace("\n", line_end))["prompt"] == prompts


def test_fields_in_quotes_keep_their_line_ends(tmp_path):
    columns = read(tmp_path, HEADER + '"a\ncat\r\nhere",b,c\n\nowl,"b\n\n","c"\r\n')
    assert columns == {"prompt": ["a\ncat\r\nhere", "owl"], "chosen": ["b", "b\n\n"], "rejected": ["c", "c"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + "a,b,c\na cat, 4k,b,c\n", "Line 3 of .* has 4 fields, and the header has 3 columns; put fields that"),
        (HEADER + "a,b\n", "Line 2 of .* has 2 fields, and the header has 3 columns; give every record all"),
        (HEADER + "a\n", "Line 2 of .* has 1 field, and the header has 3 columns"),
        (HEADER + "a,b,c\n  \n", "Line 3 of .* has 1 field"),
        (HEADER + "a,b,c,\n", "Line 2 of .* has 4 fields"),
        # The first of two open quotes is closed by the second: what follows it shows that.
        (HEADER + 'x,b,c\n"a,b,c\nx,b,c\n"d,b,c\n', "Line 3 of .* opens a quote, and text .* the next quote in line 5"),
        (HEADER + '"a,b,c\nx,b,c\n"d, e",b,c\n', "Line 2 of .* opens a quote, and text"),
        (HEADER + 'x,b,c\n"a,b,c\nx,b,c\n', "Line 3 of .* opens a quote that is not closed; close it"),
        (
            HEADER + '"a,b,c\nx,b,c"\n',
            "Line 2 of .* has 1 field, .*; a quote that opens here closes only on a later line",
        ),
        (
            HEADER + '"a" cat,b,c\n',
            "Line 2 of .* opens a quote, and text .*' cat,b,c'.* follows the next quote; close it",
        ),
        (HEADER + 'a "big" cat,b,c\n', 'Line 2 of .* has a quote inside the field \'a "big" cat\'.*as "", and put'),
        (HEADER + 'a, "b",c\n', "Line 2 of .* has a quote inside the field ' \"b\"'"),
        (
            HEADER + '"a \\"big\\" cat",b,c\n',
            "Line 2 .* text .* follows the next quote; a quote inside a field .*backslash",
        ),
        (HEADER + 'a \\"big\\" cat,b,c\n', 'Line 2 .* a quote inside a field is written as "", not with a backslash'),
        (HEADER + '"\\"cat\\"",b,c\n', "Line 2 .* not with a backslash"),
        (HEADER + '"6\\"",b,c\n"7\\"",b,c\n', "Line 2 of .* opens a quote"),
        (HEADER + '"say \\", ok\\"",b,c\n', "Line 2 .* not with a backslash"),
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("prompt,chosen,prompt\n", "has the columns 'prompt' twice"),
        ("prompt,,rejected\n", "Line 1 of .*: column 2 of the header has no name"),
        ("prompt, ,rejected\n", "column 2 of the header has no name"),
        (HEADER.encode() + b"a,b,c\n\xe9t\xe9,b,c\n", "Line 3 of .* is not UTF-8 text"),
        (HEADER.encode() + b'"a\r\nb",b,c\r\n\xe9t\xe9,b,c\r\n', "Line 4 of .* is not UTF-8 text"),
        (HEADER.encode("utf-16"), "Line 1 of .* is not UTF-8 text"),
        (HEADER + "a,b,c\na\0,b,c\n", "Line 3 of .* holds a NUL character"),
        (HEADER + 'a,b,c\n"a\n\0",b,c\n', "Line 4 of .* holds a NUL character"),
    ],
)
def test_ambiguous_csv_is_refused_with_its_line(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, content)
    assert "\n" not in str(error.value)


def test_sizes_are_bounded_and_refused_fast(tmp_path, monkeypatch):
    began = time.monotonic()
    wide = ",".join(f"c{number}" for number in range(20_000))
    with pytest.raises(UserError, match="has 20,000 columns, expected at most 1,000"):
        read(tmp_path, f"{wide}\n{wide}\n")
    assert time.monotonic() - began < 10
    monkeypatch.setattr(csv_file, "LONGEST_LINE", 100)
    with pytest.raises(UserError, match="Line 3 of .* has more than 100 characters"):
        read(tmp_path, HEADER + "a,b,c\n" + "x" * 200)
    with pytest.raises(UserError, match="Line 3 of .* has more than 100 characters"):
        read(tmp_path, HEADER + '"a\n' + "x" * 200)
    monkeypatch.setattr(csv_file, "LONGEST_FIELD", 1000)
    with pytest.raises(UserError, match="Line 2 of .* opens a quote that is not closed within 1,000 characters"):
        read(tmp_path, HEADER + '"a\n' + 100 * "row,of,others\n")


def test_long_prompts_are_read_whole(tmp_path):
    prompt = "a, b" * 50_000
    assert read(tmp_path, HEADER + f'"{prompt}",b,c\n')["prompt"] == [prompt]


def test_many_records_are_read_in_seconds(tmp_path):
    path = tmp_path / "many.csv"
    count = 200_000
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["prompt", "chosen"], *([f"thing {n}, with light", f"{n}.png"] for n in range(count))]
        )
    began = time.monotonic()
    assert len(read_csv(path)["prompt"]) == count
    # A guard against work that grows with the square, twenty times what it takes.
    assert time.monotonic() - began < 20


FIELDS = st.text(
    st.sampled_from("ab ,\"'\n\r\\;é\u2028#") | st.characters(exclude_characters="\0", codec="utf-8"), max_size=6
)
TABLES = st.integers(2, 4).flatmap(lambda width: st.lists(st.lists(FIELDS, min_size=width, max_size=width), max_size=6))
DIALECTS = st.sampled_from(
    [
        # Python quotes only the letters of the line end where it need not quote all.
        {"lineterminator": "\r\n", "quoting": csv.QUOTE_MINIMAL},
        *({"lineterminator": end, "quoting": csv.QUOTE_ALL} for end in ("\n", "\r\n", "\r")),
    ]
)


def check_written_tables(folder, rows, dialect):
    width = len(rows[0]) if rows else 2
    header = [f"column {number}" for number in range(width)]
    text = io.StringIO(newline="")
    csv.writer(text, **dialect).writerows([header, *rows])
    path = folder / "written.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    columns = read_csv(path)
    assert list(columns) == header
    assert [list(row) for row in zip(*columns.values(), strict=True)] == rows


def check_any_text(folder, text):
    path = folder / "any.csv"
    path.write_text(text, encoding="utf-8", newline="")
    try:
        columns = read_csv(path)
    except UserError as error:
        message = str(error)
    else:
        message = ""
        # What is accepted is what Python's strict reader reads, record by record.
        header, *records = (
            row for row in csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True) if row
        )
        assert list(columns) == header
        assert [list(row) for row in zip(*columns.values(), strict=True)] == records
    assert message == "" or (message.isprintable() and len(message) < 520)


@given(TABLES, DIALECTS)
@settings(max_examples=50)
def test_what_python_writes_is_read_back(tmp_path_factory, rows, dialect):
    check_written_tables(tmp_path_factory.mktemp("csv"), rows, dialect)


TEXTS = st.text(st.sampled_from('ab,,""\n\n\r\\ é'), max_size=40)


@given(TEXTS)
@example('a,b\n"c\nd",e\n')
@settings(max_examples=80)
def test_any_text_is_read_as_python_reads_it_or_refused(tmp_path_factory, text):
    check_any_text(tmp_path_factory.mktemp("csv"), text)


@pytest.mark.slow
@given(TABLES, DIALECTS, TEXTS)
@settings(max_examples=5000)
def test_many_tables_and_texts(tmp_path_factory, rows, dialect, text):
    folder = tmp_path_factory.getbasetemp()
    check_written_tables(folder, rows, dialect)
    check_any_text(folder, text)


def test_the_fast_and_the_strict_parser_agree(tmp_path, monkeypatch):
    content = HEADER + 'a,"b, c","d ""e"""\n"",",",""""\n"x",y,"z"\n'
    quick = read(tmp_path, content)
    monkeypatch.setattr(csv_file, "_SHORT", 0)
    assert read(tmp_path, content) == quick
    assert column_types.MOST_COLUMNS == 1000
