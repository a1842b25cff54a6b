"""Any bytes given as a file of pairs: read as they are meant, or one sentence."""

from __future__ import annotations

import io
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probing import preferences
from probing.errors import LONGEST_MESSAGE, UserError
from probing.preferences.rewards import read_rewards

ROWS = [
    {
        "prompt": f"a {thing}, 4k",
        "chosen": f"{n}.png",
        "rejected": f"{n + 1}.png",
        "margin": n / 4,
        "tie": n == 2,
        "pair_id": f"id {n}",
        "split": "train" if n < 4 else "test",
        "facet": "all",
        "model_chosen": "A",
        "model_rejected": "B",
    }
    for n, thing in enumerate(["cat", "dog", 'big "owl"', "ant\nhill", "émeu", "fox"])
]
WORD = st.sampled_from(
    ["", "a", "NA", "nan", "inf", "true", "007", "\x1b[31m", "\u202e", "é" * 600, "{}", "$x$", '"', "\n"]
)
VALUE = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | WORD
    | st.lists(st.integers(0, 3) | WORD, max_size=2)
    | st.dictionaries(WORD, st.integers(0, 3), min_size=1, max_size=2)
    | st.binary(max_size=4)
)
COLUMN = st.sampled_from(
    [*ROWS[0], "prompt_id", "list_id", "first", "choice", "image_chosen", "x_chosen", "x_first", "note", "", "é"]
)


def csv_bytes(rows):
    return pd.DataFrame(rows).to_csv(index=False).encode()


def json_bytes(rows):
    return "\n".join(json.dumps(row, default=repr) for row in rows).encode()


def parquet_bytes(rows):
    stream = io.BytesIO()
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            arrays[name] = pa.array([repr(value) for value in values])
    pq.write_table(pa.table(arrays), stream)
    return stream.getvalue()


WRITERS = {".csv": csv_bytes, ".jsonl": json_bytes, ".parquet": parquet_bytes}
GOOD = {suffix: write(ROWS) for suffix, write in WRITERS.items()}


@st.composite
def damaged_bytes(draw, suffix):
    """A good file with bytes changed, cut out, repeated or put in."""
    content = bytearray(GOOD[suffix])
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 8) | st.just(len(content)))
        how = draw(st.sampled_from(["flip", "cut", "repeat", "put"]))
        if how == "flip" and at < len(content):
            content[at] ^= draw(st.integers(1, 255))
        elif how == "cut":
            del content[at : at + length]
        elif how == "repeat":
            content[at:at] = content[at : at + length]
        else:
            content[at:at] = draw(
                st.sampled_from([b'"', b",", b"\n", b"\r", b"\0", b"\\", b"\xff", b"[", b"}", b"1e999"])
            )
        if not content:
            break
    return bytes(content)


@st.composite
def changed_rows(draw, suffix):
    """Good records with values of any type, columns renamed, added and lost."""
    rows = [dict(row) for row in ROWS]
    for _ in range(draw(st.integers(1, 3))):
        how, column = draw(st.sampled_from(["value", "values", "rename", "lose", "fewer"])), draw(COLUMN)
        if how == "value":
            rows[draw(st.integers(0, len(rows) - 1))][column] = draw(VALUE)
        elif how == "values":
            value = draw(VALUE)
            for row in rows:
                row[column] = value
        elif how == "rename":
            new = draw(COLUMN)
            rows = [{new if name == column else name: value for name, value in row.items()} for row in rows]
        elif how == "lose":
            for row in rows:
                row.pop(column, None)
        else:
            rows = rows[: draw(st.integers(1, len(rows)))]
    return WRITERS[suffix](rows)


@st.composite
def files(draw):
    suffix = draw(st.sampled_from(sorted(WRITERS)))
    content = draw(st.binary(max_size=64) | damaged_bytes(suffix) | changed_rows(suffix))
    return suffix, content


def check_pairs(folder, suffix, content):
    path = folder / f"fuzzed{suffix}"
    path.write_bytes(content)
    for read in (lambda: check_data(preferences.load_pairs(str(path))), lambda: read_rewards(path)):
        try:
            read()
        except UserError as error:
            message = str(error)
        else:
            message = "read"
        assert message.isprintable() and 0 < len(message) <= LONGEST_MESSAGE + 10
    assert [path.name] == [other.name for other in folder.iterdir() if other.is_file()]


def check_data(data):
    """What is accepted can be selected from, and be written as the command does."""
    assert data.items["prompt"].map(type).eq(str).all() and data.items["image"].map(type).eq(str).all()
    assert not data.items["prompt"].str.contains("[{", regex=False).any()
    pq.write_table(pa.Table.from_pandas(data.pairs, preserve_index=False), io.BytesIO())
    assert len(data.where("choice >= 0").pairs) == len(data.pairs)


@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_the_good_files_are_read(tmp_path, suffix):
    path = tmp_path / f"good{suffix}"
    path.write_bytes(GOOD[suffix])
    data = preferences.load_pairs(str(path))
    assert [data.items["prompt"].tolist()[2 * n] for n in range(6)] == [row["prompt"] for row in ROWS]
    check_data(data)


@given(files())
@settings(max_examples=100)
def test_any_file_is_read_or_refused_in_one_sentence(tmp_path_factory, file):
    check_pairs(tmp_path_factory.mktemp("fuzz"), *file)


@pytest.mark.slow
@given(files())
@settings(max_examples=6000)
def test_many_files_are_read_or_refused_in_one_sentence(tmp_path_factory, file):
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    for other in folder.iterdir():
        other.unlink()
    check_pairs(folder, *file)
