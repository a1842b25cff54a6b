"""``python -m probing.fit`` on real stores: tables, summary, and errors of one sentence."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from probing.fit import TABLES, main

from probing.analysis import fit_cells
from probing.errors import UserError
from probing.features import FeatureStore
from probing.figures import main as draw
from probing.files import read_metadata
from tests.fakes.fake_store import FakeStore, make_pairs


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder, pairs = tmp_path_factory.mktemp("stores"), make_pairs()
    return write_store(folder / "fake.zarr", pairs), write_store(folder / "fresh.zarr", pairs, random_init=True)


def test_tables_and_a_summary_are_written_and_can_be_drawn(stores, tmp_path, capsys):
    store, fresh = map(str, stores)
    asked = ["--sigmas", "0.005", "--shuffles", "1", "--output", str(tmp_path / "results")]
    assert main(["--store", store, "--random-init-store", fresh, *asked]) == 0
    said = capsys.readouterr().out
    assert "quality: image mean, σ = 0.005, block" in said and "is above the random-initialised backbone" in said
    table = pd.read_parquet(tmp_path / "results" / "reward_curve.parquet")
    assert set(table["control"]) == {"trained", "random-init", "latents", "shuffled"}
    assert set(table["store"]) == {"fake.zarr", "fresh.zarr"}
    outcomes = pd.read_parquet(tmp_path / "results" / "outcomes.parquet")
    assert set(table["cell"]) <= set(outcomes.columns)
    comparisons = pd.read_parquet(tmp_path / "results" / "comparisons.parquet")
    assert set(comparisons["baseline"]) == {"random-init", "latents"}
    assert draw(["--results", str(tmp_path / "results"), "--output", str(tmp_path / "figures")]) == 0


def test_mistakes_end_in_status_2_and_one_sentence(stores, tmp_path, capsys):
    store = str(stores[0])
    for options, message in (
        (["--store", str(tmp_path / "none.zarr")], "no feature store"),
        (["--store", store, "--sigmas", "0.5"], "no sigma 0.5; it has 0.005, 0.6"),
        (["--store", store, "--random-init-store", store], "--random-init"),
        (["--store", store, "--facets", "charm"], "no facet charm"),
    ):
        assert main([*options, "--output", str(tmp_path / "results")]) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error and error.strip().count("\n") == 0
    assert not (tmp_path / "results").exists()


def test_a_store_without_its_pairs_is_refused(stores, tmp_path, capsys):
    alone = shutil.copytree(stores[0], tmp_path / "alone.zarr")
    assert main(["--store", str(alone)]) == 2
    assert "no pairs at" in capsys.readouterr().err


def test_a_network_beside_it_says_whether_the_knowledge_is_linear(stores, tmp_path, capsys):
    asked = ["--sigmas", "0.6", "--streams", "image", "--blocks", "1,4", "--facets", "quality", "--shuffles", "0"]
    more = ["--linearity", "mlp", "--delta", "0.1", "--device", "cpu", "--random-init-store", str(stores[1])]
    assert main(["--store", str(stores[0]), *asked, *more, "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "quality, mlp less logistic: above in 0 of 2 cells" in said and "to within 10 points" in said
    table = pd.read_parquet(tmp_path / "linearity.parquet")
    assert set(table["block"]) == {1, 4} and set(table["other"]) == {"mlp"} and set(table["margin"]) == {0.1}
    blocks = pd.read_parquet(tmp_path / "blocks.parquet")
    assert set(blocks["delta"]) == {0.1} and "to tell it from block 1 by 10 points" in said


def test_a_difference_that_matters_is_above_zero(stores, tmp_path, capsys):
    assert main(["--store", str(stores[0]), "--delta", "0", "--output", str(tmp_path / "none")]) == 2
    assert "expected a number above 0" in capsys.readouterr().err


QUICK = ["--sigmas", "0.6", "--streams", "image", "--blocks", "1,4", "--facets", "quality", "--shuffles", "0"]


def test_another_models_tables_are_not_replaced_unasked(stores, tmp_path, capsys):
    other = write_store(tmp_path / "other.zarr", make_pairs(), model="m2", seed=5)
    asked = [*QUICK, "--output", str(tmp_path / "results")]
    assert main(["--store", str(stores[0]), "--random-init-store", str(stores[1]), *asked]) == 0
    before = (tmp_path / "results" / "reward_curve.parquet").read_bytes()
    capsys.readouterr()
    assert main(["--store", str(other), *asked]) == 2
    error = capsys.readouterr().err
    assert "holds the results of fake in fake.zarr" in error and "those of m2 in other.zarr" in error
    assert "another folder by --output, or --overwrite" in error and error.strip().count("\n") == 0
    assert (tmp_path / "results" / "reward_curve.parquet").read_bytes() == before
    # Other options of the same store may replace its tables; a table of an older version names its store in columns.
    assert main(["--store", str(stores[0]), "--random-init-store", str(stores[1]), *asked, "--seed", "1"]) == 0
    for path in (tmp_path / "results").glob("*.parquet"):
        pd.read_parquet(path).to_parquet(path)
    assert main(["--store", str(other), *asked]) == 2
    assert "holds the results of fake in fake.zarr" in capsys.readouterr().err
    assert main(["--store", str(other), *asked, "--overwrite"]) == 0
    assert set(pd.read_parquet(tmp_path / "results" / "reward_curve.parquet")["model"]) == {"m2"}


def test_tables_record_what_they_were_made_from(stores, tmp_path):
    assert (
        main(["--store", str(stores[0]), "--random-init-store", str(stores[1]), *QUICK, "--output", str(tmp_path)]) == 0
    )
    for name in TABLES:
        kept = read_metadata(tmp_path / f"{name}.parquet")
        assert [store for store, _ in kept["stores"]] == ["fake.zarr", "fresh.zarr"]
        assert kept["stores"][0][1] == FeatureStore.open(stores[0]).digest
        assert kept["subjects"] == [["fake", "fake.zarr"]] and len(kept["pairs"]) == 64
        assert kept["options"]["blocks"] == [1, 4] and kept["options"]["recipe"]["probe"] == "logistic"
        assert "package_version" in kept


def test_a_journal_of_a_store_made_again_is_not_used(tmp_path, monkeypatch):
    """Killed after fitting; the store is made again under the same name; the tables are those of the new store."""
    pairs = make_pairs()
    store = write_store(tmp_path / "a" / "fake.zarr", pairs)
    asked = [*QUICK, "--output", str(tmp_path / "results")]

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("probing.fit.compare", killed)
        assert main(["--store", str(store), *asked]) == 130
    assert list((tmp_path / "results" / "cells").glob("*.npz"))
    shutil.rmtree(store)
    write_store(store, pairs, seed=7)
    assert main(["--store", str(store), *asked]) == 0
    assert main(["--store", str(store), *QUICK, "--output", str(tmp_path / "undisturbed")]) == 0
    for name in TABLES:
        tables = [pd.read_parquet(tmp_path / folder / f"{name}.parquet") for folder in ("results", "undisturbed")]
        pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize("option", ["--store", "--probe", "--seed", "--output", "--blocks", "--split-by"])
def test_an_option_of_one_value_given_twice_is_refused(option, capsys):
    values = {"--probe": "ridge", "--seed": "1", "--split-by": "prompt"}
    with pytest.raises(SystemExit, match="2"):
        main(["--store", "a", *[option, values.get(option, "0")] * 2])
    assert f"argument {option}: given more than once" in capsys.readouterr().err


def test_outputs_that_cannot_be_written_are_refused_before_any_fit(stores, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("probing.fit.reward_curve", pytest.fail)
    (tmp_path / "file").write_text("mine")
    for output, message in (
        ("/dev/null", "/dev/null is a file"),
        (str(tmp_path / "file"), "file is a file"),
        (str(tmp_path / "file" / "results"), "on the way to"),
        ("/proc/none/results", "cannot be written"),
    ):
        assert main(["--store", str(stores[0]), "--output", output]) == 2
        error = capsys.readouterr().err
        assert message in error and "give another path" in error and error.strip().count("\n") == 0
    assert (tmp_path / "file").read_text() == "mine"


def test_features_that_are_not_finite_are_named(stores, tmp_path, capsys):
    pairs = make_pairs()
    store = FakeStore(pairs)
    read = store.read

    def spoilt(stream, reduction, sigma, block):
        features = read(stream, reduction, sigma, block).copy()
        if (sigma, block) == (0.6, 4):
            features[[5, 9], 2] = np.nan, np.inf
        return features

    store.read = spoilt
    with pytest.raises(UserError, match=r"image/mean at σ = 0.6, block 4, item '.*' first, 2 items in all") as caught:
        fit_cells(store, pairs, streams=["image"], sigmas=[0.6], progress=False)
    assert repr(str(store.item_ids[5])) in str(caught.value)
    # Items that are not written yet hold NaN by design.
    store.written[[5, 9]] = False
    kept = pairs[~pairs["first"].isin(store.item_ids[[5, 9]]) & ~pairs["second"].isin(store.item_ids[[5, 9]])]
    assert len(fit_cells(store, kept, streams=["image"], sigmas=[0.6], blocks=[4], progress=False).table) == 2
