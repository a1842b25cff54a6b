"""Stores of other items or other noise levels become one, which has the features of an extraction at once."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pandas as pd
import pytest

from probing.features import FeatureStore
from probing.features.store import check, merge
from probing.features.store.layout import COLUMNS
from probing.store import main as store_main
from tests.features.small_store import ARRAYS, SIGMAS
from tests.features.user_pairs import extract, make_data


def make(path, items, sigmas=SIGMAS, *, run=3, seed=0, settings=(), choice=1.0):
    """A store of named items; the values of an item and a noise level depend on these alone."""
    names = [f"item{n}" for n in items]
    table = pd.DataFrame({"item_id": names, "prompt_id": "p", "prompt": "words"})
    store = FeatureStore.create(
        path,
        arrays=ARRAYS,
        items=table,
        sigmas=sigmas,
        num_blocks=2,
        run_length=run,
        settings={"model": "tiny", "seed": 0, **dict(settings)},
        provenance={"revision": "r", "request": None},
    )
    for number in store.runs:
        values = {}
        for array in (*store.specs, *COLUMNS):
            for s in array.sigmas(len(sigmas)):
                level = 0 if array.blocks is None else int(1000 * sigmas[s])
                rows = [
                    np.random.default_rng([seed, int(item[4:]), level, len(array.name)]).integers(
                        0, 200, (*(() if array.blocks is None else (len(array.blocks),)), *array.shape)
                    )
                    for item in store.item_ids[store.rows_of_run(number)]
                ]
                values[array.name, s] = np.stack(rows).astype(array.dtype)
        store.write_run(number, values)
    pairs = pd.DataFrame({"pair_id": ["a", f"b{names[0]}"], "first": names[0], "second": sorted(names)[1]})
    store.write_pairs(pairs.assign(choice=choice, split="train").iloc[(0 if names[0] == "item0" else 1) :])
    return path


def assert_same(one, other):
    assert one.item_ids.tolist() == other.item_ids.tolist() and one.sigmas == other.sigmas
    assert (one.prompt_digests == other.prompt_digests).all()
    for stream, reduction in one.arrays():
        for sigma in one.sigmas:
            for block in one.blocks_of(stream):
                assert np.array_equal(
                    one.read(stream, reduction, sigma, block), other.read(stream, reduction, sigma, block)
                )
    for column in COLUMNS:
        assert np.array_equal(one.read_column(column.name), other.read_column(column.name))
    for reduction in one.latent_reductions():
        assert np.array_equal(one.read_latents(reduction), other.read_latents(reduction))
    assert one.digest == other.digest


def test_disjoint_items_become_one_store_whatever_their_runs(tmp_path):
    parts = [
        make(tmp_path / "a.zarr", range(5)),
        make(tmp_path / "b.zarr", range(5, 12)),
        make(tmp_path / "c.zarr", [12, 13]),
    ]
    merged = merge(parts, tmp_path / "all.zarr")
    assert_same(merged, FeatureStore.open(make(tmp_path / "whole.zarr", range(14))))
    assert check(merged.path) == [] and merged.complete and merged.extents == [5, 12, 14]
    assert merged.read_pairs()["pair_id"].tolist() == ["a", "bitem0", "bitem5", "bitem12"]
    assert merged.attributes["revision"] == "r"


def test_disjoint_noise_levels_become_one_store_whatever_the_order_of_items(tmp_path):
    parts = [make(tmp_path / "a.zarr", range(7)), make(tmp_path / "b.zarr", [0, *range(6, 0, -1)], (0.9,))]
    merged = merge(parts, tmp_path / "all.zarr")
    assert_same(merged, FeatureStore.open(make(tmp_path / "whole.zarr", range(7), (*SIGMAS, 0.9))))
    assert check(merged.path) == []


def test_an_interrupted_merger_goes_on(tmp_path, monkeypatch):
    parts = [make(tmp_path / "a.zarr", range(5)), make(tmp_path / "b.zarr", range(5, 12))]
    write, done = FeatureStore.write_run, []

    def stop(self, run, values):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(run)
        write(self, run, values)

    monkeypatch.setattr(FeatureStore, "write_run", stop)
    with pytest.raises(KeyboardInterrupt):
        merge(parts, tmp_path / "all.zarr")
    done.clear()
    assert merge(parts, tmp_path / "all.zarr").complete and done == [2, 3]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"items": range(3, 9)}, "have items and noise levels in common"),
        ({"items": range(5, 9), "sigmas": (0.9,)}, "has other noise levels than .*where items are disjoint"),
        ({"items": range(6), "sigmas": (0.9,)}, "has other items than"),
        (
            {"items": range(5, 9), "settings": {"seed": 1}},
            "made otherwise than .*: seed was 0 and is now 1; leave it out",
        ),
        ({"items": range(5), "sigmas": (0.9,), "seed": 1}, "other pictures of item 'item0'"),
        ({"items": range(5), "sigmas": (0.9,), "choice": 0.0}, "disagree on pair 'a'"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_changed(tmp_path, capsys, other, message):
    paths = [make(tmp_path / "a.zarr", range(5)), make(tmp_path / "b.zarr", **other)]
    options = [option for path in paths for option in ("--store", str(path))]
    before = {path: path.read_bytes() for store in paths for path in store.rglob("*") if path.is_file()}
    assert store_main(["merge", *options, "--output", str(tmp_path / "all.zarr")]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1
    assert before == {path: path.read_bytes() for path in before}


def test_one_store_an_incomplete_one_and_a_foreign_output_are_refused(tmp_path, capsys):
    a, b = make(tmp_path / "a.zarr", range(5)), make(tmp_path / "b.zarr", range(5, 12))
    assert store_main(["merge", "--store", str(a), "--output", str(tmp_path / "c.zarr")]) == 2
    assert "takes two stores or more" in capsys.readouterr().err
    shutil.copytree(a, tmp_path / "c.zarr")
    shutil.copy(f"{a}.pairs.parquet", f"{tmp_path / 'c.zarr'}.pairs.parquet")
    assert store_main(["merge", "--store", str(a), "--store", str(b), "--output", str(tmp_path / "c.zarr")]) == 2
    assert "holds something else" in capsys.readouterr().err
    shutil.rmtree(b / "runs" / "1")
    assert store_main(["merge", "--store", str(a), "--store", str(b), "--output", str(tmp_path / "d.zarr")]) == 2
    assert "b.zarr is not complete; finish it" in capsys.readouterr().err


def test_halves_of_a_data_set_become_the_whole(tiny_folder, tmp_path, capsys):
    data = make_data(tmp_path / "data")
    for name, split in (("train", "split == 'train'"), ("test", "split == 'test'"), ("all", "split != 'x'")):
        assert extract(tiny_folder, data, tmp_path / f"{name}.zarr", "--where", split, "--sigmas", "0.6") == 0
    options = [f"--store={tmp_path / name}.zarr" for name in ("train", "test")]
    assert store_main(["merge", *options, "--output", str(tmp_path / "merged.zarr")]) == 0
    assert "items at sigma 0.6; the 2 stores are unchanged" in capsys.readouterr().out
    merged, whole = (FeatureStore.open(tmp_path / f"{name}.zarr") for name in ("merged", "all"))
    order = [whole.item_ids.tolist().index(item) for item in merged.item_ids]
    for block in whole.blocks_of("image"):
        one, other = (store.read("image", "mean", 0.6, block) for store in (merged, whole))
        np.testing.assert_allclose(one, other[order], rtol=1e-4, atol=1e-5)
    # The same command extracts nothing more.
    assert extract(tiny_folder, data, tmp_path / "merged.zarr", "--sigmas", "0.6") == 0
    assert f"0 items computed, {len(whole.item_ids)} were in the store" in capsys.readouterr().out
