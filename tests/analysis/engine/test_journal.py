"""A journal gives back what was kept for the same content, and nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probing.analysis import Recipe, fit_cells
from probing.analysis.fits import Fitter, Job
from probing.analysis.journal import Journal, Measured, clear, journal_settings
from probing.analysis.pairs import facets_of
from tests.fakes.fake_store import FakeStore, make_pairs

CELLS = [Measured({"cell": "a|b", "alpha": float("nan")}, np.arange(6.0).reshape(3, 2)), Measured({}, np.empty(0))]
PLACE = {"blocks": [5], "sigmas": [0.6], "streams": ["image"], "facets": ["quality"], "progress": False}


@pytest.fixture(scope="module")
def pairs():
    return make_pairs()


def same(found):
    return found is not None and all(
        repr(one.row) == repr(other.row) and np.array_equal(one.margins, other.margins)
        for one, other in zip(found, CELLS, strict=True)
    )


def test_a_part_is_found_under_its_own_key_alone(tmp_path):
    journal = Journal(tmp_path, {"store": "x"})
    journal.keep(["a", "b|c"], CELLS)
    assert same(journal.find("a", "b|c"))
    assert journal.find("a|b", "c") is None and journal.find("a") is None
    assert Journal(tmp_path, {"store": "y"}).find("a", "b|c") is None
    assert Journal(None, {}).find("a") is None


def check_damage(tmp_path, position, value, cut):
    journal = Journal(tmp_path, {"store": "x"})
    journal.keep(["a"], CELLS)
    (path,) = tmp_path.glob("*.npz")
    whole = path.read_bytes()
    changed = bytearray(whole[: round(cut * len(whole))])
    if changed and cut == 1:
        changed[position % len(changed)] ^= value
    path.write_bytes(bytes(changed))
    assert journal.find("a") is None
    journal.keep(["a"], CELLS)
    assert same(journal.find("a"))


damage = given(position=st.integers(0, 10**6), value=st.integers(1, 255), cut=st.sampled_from([0.0, 0.3, 0.99, 1.0]))


@damage
def test_a_damaged_part_is_measured_again(tmp_path_factory, position, value, cut):
    check_damage(tmp_path_factory.mktemp("journal"), position, value, cut)


@pytest.mark.slow
@settings(max_examples=2000)
@damage
def test_a_damaged_part_is_measured_again_many_times(tmp_path_factory, position, value, cut):
    check_damage(tmp_path_factory.mktemp("journal"), position, value, cut)


def test_a_part_of_another_key_is_not_taken_for_this(tmp_path):
    journal = Journal(tmp_path, {"store": "x"})
    journal.keep(["a"], CELLS)
    (path,) = tmp_path.glob("*.npz")
    content = path.read_bytes()
    path.unlink()
    journal.keep(["b"], CELLS)
    (other,) = tmp_path.glob("*.npz")
    other.write_bytes(content)
    assert journal.find("b") is None


@pytest.mark.parametrize(
    "change",
    [
        lambda pairs: pairs.assign(choice=1 - pairs["choice"]),
        # Margins are kept in the order of the pairs.
        lambda pairs: pairs.iloc[::-1],
        lambda pairs: pairs.assign(first=pairs["second"], second=pairs["first"]),
    ],
)
def test_other_pairs_are_measured_anew(pairs, tmp_path, change):
    store = FakeStore(pairs)
    measure_cells(store, pairs, **PLACE, run=Run(journal=tmp_path))
    resumed = measure_cells(store, change(pairs), **PLACE, run=Run(journal=tmp_path))
    fresh = measure_cells(store, change(pairs), **PLACE)
    pd.testing.assert_frame_equal(resumed.table, fresh.table)
    pd.testing.assert_frame_equal(resumed.margins, fresh.margins)


def test_a_store_made_again_is_measured_anew_and_a_moved_one_is_not(pairs, tmp_path):
    one, other = FakeStore(pairs), FakeStore(pairs, seed=9)
    one.path = other.path = tmp_path / "same.zarr"
    measure_cells(one, pairs, **PLACE, run=Run(journal=tmp_path))
    resumed = measure_cells(other, pairs, **PLACE, run=Run(journal=tmp_path))
    pd.testing.assert_frame_equal(resumed.table, measure_cells(other, pairs, **PLACE).table)
    assert resumed.table["value"].item() != measure_cells(one, pairs, **PLACE).table["value"].item()
    assert len(list(tmp_path.glob("*.npz"))) == 2
    one.path = tmp_path / "moved.zarr"
    measure_cells(one, pairs, **PLACE, run=Run(journal=tmp_path))
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_labels_and_weights_of_pairs_are_part_of_the_key(pairs, tmp_path):
    recipe = Recipe(labels="share", weights="weight")
    store, found = FakeStore(pairs), []
    for share, weight in ((0.9, 1.0), (0.1, 1.0), (0.9, 2.0)):
        labelled = pairs.assign(share=np.where(pairs["choice"] == 1, share, 1 - share), weight=weight)
        labelled.loc[labelled.index % 4 == 1, "weight"] = 1.0
        (facet,) = facets_of(store, labelled, ["quality"])
        fitter = Fitter(store, facet, recipe, journal=tmp_path)
        (fit,) = fitter.fit([Job("same", lambda: store.read("image", "mean", 0.6, 4))])
        found.append(tuple(fit.margins.ravel()))
    assert len(set(found)) == 3


def test_the_key_has_the_versions_and_the_resolved_device(pairs):
    kept = journal_settings(FakeStore(pairs), pairs, Recipe(device="auto"))
    assert kept["recipe"]["device"] in ("cpu", "cuda") and {"numpy", "scipy"} <= set(kept["libraries"])


def test_clearing_leaves_what_is_not_the_journals(tmp_path):
    folder = tmp_path / "cells"
    Journal(folder, {}).keep(["a"], CELLS)
    (folder / "mine.npz").write_bytes(b"")
    clear(folder)
    assert [path.name for path in folder.iterdir()] == ["mine.npz"]
    (folder / "mine.npz").unlink()
    clear(folder)
    clear(folder)
    assert not folder.exists()
