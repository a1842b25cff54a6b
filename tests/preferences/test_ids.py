"""Ids are found as pandas finds them, also where their hashes are equal."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probing.preferences import ids as ids_module
from probing.preferences.ids import repeated, rows_of

TEXTS = st.lists(st.text(alphabet="ab/é0", max_size=4), min_size=1, max_size=60)


@pytest.fixture(params=["hashes apart", "hashes that collide"])
def hashing(request, monkeypatch):
    if request.param == "hashes that collide":
        original = ids_module._hashes
        monkeypatch.setattr(ids_module, "_hashes", lambda ids: original(ids) % np.uint64(3))
    monkeypatch.setattr(ids_module, "_CHUNK", 7)


@pytest.mark.usefixtures("hashing")
def test_repeats_are_pandas_duplicates():
    @given(texts=TEXTS)
    def check(texts):
        column = pd.Series(texts, dtype=str)
        np.testing.assert_array_equal(repeated(column), column.duplicated())

    check()


@pytest.mark.usefixtures("hashing")
def test_rows_are_those_of_the_index():
    @given(texts=TEXTS, selected=TEXTS)
    def check(texts, selected):
        among = pd.Series(texts, dtype=str).drop_duplicates().reset_index(drop=True)
        expected = pd.Index(among).get_indexer(pd.Series(selected, dtype=str))
        np.testing.assert_array_equal(rows_of(pd.Series(selected, dtype=str), among), expected)

    check()


def test_unknown_id_with_the_hash_of_a_known_one(monkeypatch):
    hashes = {"a": 1, "b": 2, "x": 2}
    monkeypatch.setattr(ids_module, "_hashes", lambda ids: np.array([hashes[text] for text in ids], dtype=np.uint64))
    np.testing.assert_array_equal(rows_of(pd.Series(["b", "x", "a"]), pd.Series(["a", "b"])), [1, -1, 0])


def test_whole_numbers_are_compared_as_texts():
    assert repeated(pd.Series([3, 4, 3])).tolist() == [False, False, True]
    assert rows_of(pd.Series([4, 5]), pd.Series(["3", "4"])).tolist() == [1, -1]
