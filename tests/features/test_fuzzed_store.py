"""Documents edited at random and files with random bytes: the same numbers, or one sentence."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probing.errors import UserError
from probing.features.store import check
from tests.features.small_store import everything, make_small_store
from tests.features.test_damage import files_of

_VALUES = st.one_of(
    st.sampled_from([None, True, 0, -1, 10**12, 2**63, 1e308, "", "x", [], {}, [10**12], [[1]], {"a": [1]}, "float64"]),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
)


@pytest.fixture(scope="module")
def whole() -> Path:
    folder = Path(tempfile.mkdtemp())
    yield make_small_store(folder / "s.zarr").path
    shutil.rmtree(folder)


def outcome(path: Path) -> str | dict:
    try:
        return everything(path)
    except UserError as error:
        return str(error)


def same_or_sentence(path: Path, expected: dict, *, changed: bool) -> None:
    """No command takes other numbers from it, and a check finds every change."""
    found = outcome(path)
    assert found == expected or (isinstance(found, str) and "\n" not in found and len(found) < 2000)
    problems: list | str
    try:
        problems = check(path)
    except UserError as error:
        problems = str(error)
    assert bool(problems) == changed


def places_in(document, path=()):
    """List the path of every value in a JSON document."""
    children = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in children:
        yield (*path, key)
        yield from places_in(value, (*path, key))


def edit_a_document(whole: Path, data: st.DataObject) -> None:
    expected = everything(whole)
    documents = [file for file in files_of(whole) if file.suffix == ".json"]
    file = data.draw(st.sampled_from(documents))
    content = file.read_bytes()
    document = json.loads(content)
    *parents, last = data.draw(st.sampled_from(list(places_in(document))))
    holder = document
    for key in parents:
        holder = holder[key]
    if data.draw(st.booleans()) or isinstance(holder, list):
        holder[last] = data.draw(_VALUES)
    else:
        del holder[last]
    try:
        file.write_text(json.dumps(document))
        same_or_sentence(whole, expected, changed=file.read_bytes() != content)
    finally:
        file.write_bytes(content)


def write_random_bytes(whole: Path, data: st.DataObject) -> None:
    expected = everything(whole)
    file = data.draw(st.sampled_from(files_of(whole)))
    content = file.read_bytes()
    start = data.draw(st.integers(0, len(content) - 1))
    junk = data.draw(st.binary(min_size=1, max_size=16))
    try:
        file.write_bytes(content[:start] + junk + content[start + len(junk) :])
        same_or_sentence(whole, expected, changed=file.read_bytes() != content)
    finally:
        file.write_bytes(content)


@settings(max_examples=10)
@given(st.data())
def test_an_edited_document(whole, data):
    edit_a_document(whole, data)


@settings(max_examples=10)
@given(st.data())
def test_random_bytes(whole, data):
    write_random_bytes(whole, data)


@pytest.mark.slow
@settings(max_examples=1500)
@given(st.data())
def test_many_edited_documents(whole, data):
    edit_a_document(whole, data)


@pytest.mark.slow
@settings(max_examples=1500)
@given(st.data())
def test_many_random_bytes(whole, data):
    write_random_bytes(whole, data)
