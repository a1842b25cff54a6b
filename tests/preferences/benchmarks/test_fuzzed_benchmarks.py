"""Any value in any field of any published file: read as it is meant, or one sentence, and never a write."""

from __future__ import annotations

import io
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probing import preferences
from probing.errors import LONGEST_MESSAGE, UserError
from probing.preferences.benchmarks import BENCHMARKS
from tests.preferences.published import write

WORD = st.sampled_from(["", "a", "NA", "nan", "inf", "null", "true", "007", "[1]", "{}", "\x1b[31m", "é" * 600, "\n"])
PLAIN = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | WORD
VALUE = (
    PLAIN
    | st.lists(PLAIN, max_size=3)
    | st.dictionaries(WORD, PLAIN, max_size=2)
    | st.binary(max_size=4)
    | st.just({"bytes": b"no picture", "path": None})
)
TABLES = (".json", ".parquet")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Published files of a benchmark, and a copy to damage."""
    made = {}

    def of(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("fuzz")
            made[name] = write(name, folder / "published", prompts=3), folder / "damaged"
            shutil.copytree(*made[name])
        return made[name]

    return of


def tables(folder):
    return sorted(path for path in folder.rglob("*") if path.suffix in TABLES)


def records(path):
    return json.loads(path.read_text()) if path.suffix == ".json" else pq.read_table(path).to_pylist()


def save(path, rows):
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, default=repr))
        return
    columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pa.array(values)
            pq.write_table(pa.table({name: arrays[name]}), io.BytesIO())
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            arrays[name] = pa.array([repr(value) for value in values])
    pq.write_table(pa.table(arrays), path)


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(name, folder):
    """Load everything and open what is there; a refusal is one sentence."""
    before = content(folder)
    try:
        data = preferences.load_pairs(name, root=folder)
        for item in data.items["item_id"][:2]:
            data.open_image(item)
            for kind in data.heat_map_kinds:
                data.heat_map(item, kind)
    except UserError as error:
        message = str(error)
        assert "\n" not in message and 20 < len(message) <= LONGEST_MESSAGE
    assert content(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_changed_field_is_read_or_refused_in_a_sentence(name, folders, data):
    published, damaged = folders(name)
    path = data.draw(st.sampled_from(tables(published)), label="file")
    rows = records(path)
    for _ in range(data.draw(st.integers(1, 3))):
        row = rows[data.draw(st.integers(0, len(rows) - 1))]
        field = data.draw(st.sampled_from([*row, "other"]), label="field")
        if data.draw(st.booleans(), label="in all records"):
            value = data.draw(VALUE)
            for each in rows:
                each[field] = value
        elif data.draw(st.booleans(), label="removed"):
            row.pop(field, None)
        else:
            row[field] = data.draw(VALUE, label="value")
    target = damaged / path.relative_to(published)
    save(target, rows)
    try:
        read(name, damaged)
    finally:
        shutil.copy(path, target)


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_bytes_are_read_or_refused_in_a_sentence(name, folders, data):
    published, damaged = folders(name)
    path = data.draw(st.sampled_from(tables(published)), label="file")
    changed = bytearray(path.read_bytes())
    start = data.draw(st.integers(0, len(changed) - 1))
    stop = data.draw(st.integers(start, min(len(changed), start + 64)))
    changed[start:stop] = data.draw(st.binary(max_size=64))
    if data.draw(st.booleans(), label="cut off"):
        del changed[start:]
    target = damaged / path.relative_to(published)
    target.write_bytes(changed)
    try:
        read(name, damaged)
    finally:
        shutil.copy(path, target)
