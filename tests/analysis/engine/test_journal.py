"""A journal returns an entry for the same content only."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probing.analysis.engine import Fitter, Job, Journal, Recipe, Run, Sites, facets_of, measure_cells, prune_journal
from probing.analysis.engine.journal import Entry, journal_settings
from tests.fakes.fake_store import FakeStore, make_pairs

ENTRY = Entry({"cell": "a|b", "alpha": float("nan")}, {"margins": np.arange(6.0).reshape(3, 2), "scored": np.empty(0)})
CELL = {"sites": Sites(("image",), sigmas=(0.6,), blocks=(5,)), "facets": ["quality"]}


@pytest.fixture(scope="module")
def pairs():
    return make_pairs()


def same(entry):
    return (
        entry is not None
        and repr(entry.values) == repr(ENTRY.values)
        and entry.arrays.keys() == ENTRY.arrays.keys()
        and all(np.array_equal(entry.arrays[name], array) for name, array in ENTRY.arrays.items())
    )


def test_an_entry_is_read_under_its_own_key(tmp_path):
    journal = Journal(tmp_path, {"store": "x"})
    journal.write("a/b", ENTRY)
    assert same(journal.read("a/b"))
    assert journal.read("a|b") is None and journal.read("a") is None
    assert Journal(tmp_path, {"store": "y"}).read("a/b") is None
    assert Journal(None, {}).read("a") is None


def check_damage(tmp_path, position, value, cut):
    journal = Journal(tmp_path, {"store": "x"})
    journal.write("a", ENTRY)
    (path,) = tmp_path.glob("*.npz")
    whole = path.read_bytes()
    changed = bytearray(whole[: round(cut * len(whole))])
    if changed and cut == 1:
        changed[position % len(changed)] ^= value
    path.write_bytes(bytes(changed))
    assert journal.read("a") is None
    journal.write("a", ENTRY)
    assert same(journal.read("a"))


damage = given(position=st.integers(0, 10**6), value=st.integers(1, 255), cut=st.sampled_from([0.0, 0.3, 0.99, 1.0]))


@damage
def test_a_damaged_entry_is_ignored(tmp_path_factory, position, value, cut):
    check_damage(tmp_path_factory.mktemp("journal"), position, value, cut)


@pytest.mark.slow
@settings(max_examples=2000)
@damage
def test_many_damaged_entries_are_ignored(tmp_path_factory, position, value, cut):
    check_damage(tmp_path_factory.mktemp("journal"), position, value, cut)


def test_an_entry_of_another_key_is_ignored(tmp_path):
    journal = Journal(tmp_path, {"store": "x"})
    journal.write("a", ENTRY)
    (path,) = tmp_path.glob("*.npz")
    content = path.read_bytes()
    path.unlink()
    journal.write("b", ENTRY)
    (other,) = tmp_path.glob("*.npz")
    other.write_bytes(content)
    assert journal.read("b") is None


@pytest.mark.parametrize(
    "change",
    [
        lambda pairs: pairs.assign(choice=1 - pairs["choice"]),
        # Margins are stored in the order of the pairs.
        lambda pairs: pairs.iloc[::-1],
        lambda pairs: pairs.assign(first=pairs["second"], second=pairs["first"]),
    ],
)
def test_other_pairs_are_measured_anew(pairs, tmp_path, change):
    store = FakeStore(pairs)
    measure_cells(store, pairs, **CELL, run=Run(journal=tmp_path))
    resumed = measure_cells(store, change(pairs), **CELL, run=Run(journal=tmp_path))
    anew = measure_cells(store, change(pairs), **CELL)
    pd.testing.assert_frame_equal(resumed.table, anew.table)
    pd.testing.assert_frame_equal(resumed.margins, anew.margins)


def test_entries_follow_the_content_of_the_store(pairs, tmp_path):
    one, other = FakeStore(pairs), FakeStore(pairs, seed=9)
    one.path = other.path = tmp_path / "same.zarr"
    measure_cells(one, pairs, **CELL, run=Run(journal=tmp_path))
    resumed = measure_cells(other, pairs, **CELL, run=Run(journal=tmp_path))
    pd.testing.assert_frame_equal(resumed.table, measure_cells(other, pairs, **CELL).table)
    assert resumed.table["value"].item() != measure_cells(one, pairs, **CELL).table["value"].item()
    assert len(list(tmp_path.glob("*.npz"))) == 2
    one.path = tmp_path / "moved.zarr"
    measure_cells(one, pairs, **CELL, run=Run(journal=tmp_path))
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_labels_and_weights_are_part_of_the_key(pairs, tmp_path):
    recipe = Recipe(labels="share", weights="weight")
    store, margins = FakeStore(pairs), []
    for share, weight in ((0.9, 1.0), (0.1, 1.0), (0.9, 2.0)):
        labelled = pairs.assign(share=np.where(pairs["choice"] == 1, share, 1 - share), weight=weight)
        labelled.loc[labelled.index % 4 == 1, "weight"] = 1.0
        (facet,) = facets_of(store, labelled, ["quality"])
        fitter = Fitter(store, [facet], recipe, Run(journal=tmp_path))
        (fit,) = fitter.fit_facet([Job("same", lambda: store.read("image", "mean", 0.6, 4))])
        margins.append(tuple(fit.margins.ravel()))
    assert len(set(margins)) == 3


def test_versions_and_device_are_part_of_the_key(pairs):
    key = journal_settings(FakeStore(pairs), pairs, Recipe(device="auto"))
    assert key["recipe"]["device"] in ("cpu", "cuda") and {"numpy", "scipy"} <= set(key["libraries"])


def test_pruning_removes_the_oldest_entries_and_nothing_else(tmp_path):
    folder, journal = tmp_path / "cells", Journal(tmp_path / "cells", {})
    for age, name in enumerate("cba"):
        journal.write(name, ENTRY)
        (new,) = [path for path in folder.iterdir() if path.stat().st_mtime > 10**6]
        os.utime(new, (1000 - age, 1000 - age))
    (folder / "notes.npz").write_bytes(b"x" * 10**6)
    size = new.stat().st_size
    prune_journal(folder, 2 * size)
    assert journal.read("a") is None and same(journal.read("b")) and same(journal.read("c"))
    prune_journal(folder, 0)
    prune_journal(tmp_path / "missing", 0)
    assert [path.name for path in folder.iterdir()] == ["notes.npz"]


def test_experiments_share_fits_with_and_without_shuffles(pairs, tmp_path, monkeypatch):
    """A fit with shuffles serves one without; the other way round the shuffles are added."""
    store = FakeStore(pairs)
    expected = {shuffles: measure_cells(store, pairs, **CELL, shuffles=shuffles) for shuffles in (0, 3)}
    fits, fit = [], Recipe.fit
    monkeypatch.setattr(Recipe, "fit", lambda *arguments: fits.append(1) or fit(*arguments))
    for order, needed in (((3, 0, 3), [1, 0, 0]), ((0, 3, 0), [1, 1, 0])):
        run, counts = Run(journal=tmp_path / str(order)), []
        for shuffles in order:
            before = len(fits)
            measured = measure_cells(store, pairs, **CELL, shuffles=shuffles, run=run)
            counts.append(len(fits) - before)
            pd.testing.assert_frame_equal(measured.table, expected[shuffles].table)
        assert counts == needed
