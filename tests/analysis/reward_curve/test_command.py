"""``python -m probing.measure reward-curve``: tables, summary, and errors of one sentence."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from probing.analysis.engine import Sites, measure_cells
from probing.analysis.reward_curve.experiment import TABLES
from probing.errors import UserError
from probing.features import FeatureStore
from probing.figures import main as draw
from probing.measure import main as measure
from probing.table_files import read_metadata
from tests.fakes.disk_store import write_store
from tests.fakes.fake_store import FakeStore, make_pairs

ONE_CURVE = ["--sigmas", "0.6", "--streams", "image", "--blocks", "1,4", "--facets", "quality", "--shuffles", "0"]


def main(arguments):
    return measure(["reward-curve", *arguments])


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder, pairs = tmp_path_factory.mktemp("stores"), make_pairs()
    return write_store(folder / "fake.zarr", pairs), write_store(folder / "random.zarr", pairs, random_init=True)


@pytest.mark.usefixtures("blank_figures")
def test_tables_are_written_and_drawn(stores, tmp_path, capsys):
    store, random_init = map(str, stores)
    options = ["--sigmas", "0.005", "--shuffles", "2", "--output", str(tmp_path / "results")]
    assert main(["--store", store, "--store", random_init, *options]) == 0
    output = capsys.readouterr().out
    assert "quality: image mean, σ = 0.005, block" in output and "is above the random-initialised backbone" in output
    table = pd.read_parquet(tmp_path / "results" / "reward_curve.parquet")
    assert set(table["control"]) == {"trained", "random-init", "latents", "shuffled"}
    assert set(table["store"]) == {"fake.zarr", "random.zarr"}
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
        (["--store", store, "--store", store], "Got 2 stores of trained weights"),
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


def test_linearity_compares_with_a_network(stores, tmp_path, capsys):
    options = ["--linearity", "mlp", "--delta", "0.1", "--device", "cpu", "--store", str(stores[1])]
    assert main(["--store", str(stores[0]), *ONE_CURVE, *options, "--output", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "quality, mlp less logistic: above in 0 of 2 cells" in output and "to within 10 points" in output
    table = pd.read_parquet(tmp_path / "linearity.parquet")
    assert set(table["block"]) == {1, 4} and set(table["other"]) == {"mlp"} and set(table["margin"]) == {0.1}
    blocks = pd.read_parquet(tmp_path / "blocks.parquet")
    assert set(blocks["delta"]) == {0.1} and "to distinguish it from block 1 by 10 points" in output


def test_delta_is_above_zero(stores, tmp_path, capsys):
    assert main(["--store", str(stores[0]), "--delta", "0", "--output", str(tmp_path / "none")]) == 2
    assert "expected a number above 0" in capsys.readouterr().err


def test_tables_of_another_model_are_not_replaced(stores, tmp_path, capsys):
    other = write_store(tmp_path / "other.zarr", make_pairs(), model="m2", seed=5)
    options = [*ONE_CURVE, "--output", str(tmp_path / "results")]
    assert main(["--store", str(stores[0]), "--store", str(stores[1]), *options]) == 0
    before = (tmp_path / "results" / "reward_curve.parquet").read_bytes()
    capsys.readouterr()
    assert main(["--store", str(other), *options]) == 2
    error = capsys.readouterr().err
    assert "holds the results of fake in fake.zarr" in error and "those of m2 in other.zarr" in error
    assert "another folder by --output, or --overwrite" in error and error.strip().count("\n") == 0
    assert (tmp_path / "results" / "reward_curve.parquet").read_bytes() == before
    # Other options of the same store may replace its tables; an older table records its store in columns.
    assert main(["--store", str(stores[0]), "--store", str(stores[1]), *options, "--seed", "1"]) == 0
    for path in (tmp_path / "results").glob("*.parquet"):
        pd.read_parquet(path).to_parquet(path)
    assert main(["--store", str(other), *options]) == 2
    assert "holds the results of fake in fake.zarr" in capsys.readouterr().err
    assert main(["--store", str(other), *options, "--overwrite"]) == 0
    assert set(pd.read_parquet(tmp_path / "results" / "reward_curve.parquet")["model"]) == {"m2"}


def test_tables_record_their_inputs(stores, tmp_path):
    assert main(["--store", str(stores[0]), "--store", str(stores[1]), *ONE_CURVE, "--output", str(tmp_path)]) == 0
    for name in TABLES:
        metadata = read_metadata(tmp_path / f"{name}.parquet")
        assert [store for store, _ in metadata["stores"]] == ["fake.zarr", "random.zarr"]
        assert metadata["stores"][0][1] == FeatureStore.open(stores[0]).digest
        assert metadata["subjects"] == [["fake", "fake.zarr"]] and len(metadata["pairs"]) == 64
        assert metadata["options"]["sites"]["blocks"] == [1, 4] and metadata["options"]["recipe"]["probe"] == "logistic"
        assert "package_version" in metadata


def test_a_journal_of_another_store_is_not_used(tmp_path, monkeypatch):
    """After an interruption and a new store of the same name, the tables are those of the new store."""
    pairs = make_pairs()
    store = write_store(tmp_path / "a" / "fake.zarr", pairs)
    options = [*ONE_CURVE, "--output", str(tmp_path / "results")]

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("probing.analysis.reward_curve.experiment.compare", interrupt)
        assert main(["--store", str(store), *options]) == 130
    assert list((tmp_path / "results" / "fits").glob("*.npz"))
    shutil.rmtree(store)
    write_store(store, pairs, seed=7)
    assert main(["--store", str(store), *options]) == 0
    assert main(["--store", str(store), *ONE_CURVE, "--output", str(tmp_path / "undisturbed")]) == 0
    for name in TABLES:
        tables = [pd.read_parquet(tmp_path / folder / f"{name}.parquet") for folder in ("results", "undisturbed")]
        pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize("option", ["--probe", "--seed", "--output", "--blocks", "--split-by"])
def test_an_option_of_one_value_given_twice_is_refused(option, capsys):
    values = {"--probe": "ridge", "--seed": "1", "--split-by": "prompt"}
    assert main(["--store", "a", *[option, values.get(option, "0")] * 2]) == 2
    assert f"{option} is given more than once" in capsys.readouterr().err


def test_unwritable_outputs_are_refused_before_any_fit(stores, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("probing.analysis.reward_curve.run_reward_curve", pytest.fail)
    (tmp_path / "file").write_text("text")
    for output, message in (
        ("/dev/null", "/dev/null is a file"),
        (str(tmp_path / "file"), "file is a file"),
        (str(tmp_path / "file" / "results"), "on the way to"),
        ("/proc/none/results", "cannot be written"),
    ):
        assert main(["--store", str(stores[0]), "--output", output]) == 2
        error = capsys.readouterr().err
        assert message in error and "give another path" in error and error.strip().count("\n") == 0
    assert (tmp_path / "file").read_text() == "text"


def test_features_that_are_not_finite_are_refused(stores, tmp_path, capsys):
    pairs = make_pairs()
    store = FakeStore(pairs)
    read = store.read

    def read_damaged(stream, reduction, sigma, block):
        features = read(stream, reduction, sigma, block).copy()
        if (sigma, block) == (0.6, 4):
            features[[5, 9], 2] = np.nan, np.inf
        return features

    store.read = read_damaged
    with pytest.raises(UserError, match=r"image/mean at σ = 0.6, block 4, item '.*' first, 2 such items") as caught:
        measure_cells(store, pairs, sites=Sites(("image",), sigmas=(0.6,)))
    assert repr(str(store.item_ids[5])) in str(caught.value)
    # Items that are not written yet are NaN.
    store.written[[5, 9]] = False
    rest = pairs[~pairs["first"].isin(store.item_ids[[5, 9]]) & ~pairs["second"].isin(store.item_ids[[5, 9]])]
    assert len(measure_cells(store, rest, sites=Sites(("image",), sigmas=(0.6,), blocks=(4,))).table) == 3
