"""``python -m probing.measure`` on feature stores: tables, reuse, and errors of one sentence."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest

from probing.figures import main as draw
from probing.measure import main
from probing.result_tables import measured_rows
from tests.fakes.disk_store import write_store
from tests.fakes.fake_store import make_pairs

FEW_CELLS = ["--streams", "image", "--sigmas", "0.005", "--facets", "quality"]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder, pairs = tmp_path_factory.mktemp("stores"), make_pairs()
    provenance = {"parameters": 1000, "forward_flops": 5000, "data_fingerprint": "planted"}
    return (
        str(write_store(folder / "fake.zarr", pairs, provenance={**provenance, "revision": "one"})),
        str(write_store(folder / "random.zarr", pairs, random_init=True, provenance={**provenance, "revision": "two"})),
    )


def assert_refused(capsys, arguments, message):
    """The command ends with status 2 and one sentence on stderr."""
    assert main(arguments) == 2, arguments
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and error.strip().count("\n") == 0


@pytest.mark.usefixtures("blank_figures")
def test_each_experiment_writes_its_table_and_a_summary(stores, tmp_path, capsys):
    trained, random_init = stores
    options_of = {
        "combinations": ["--store", trained, "--stages", "0-2,3-5", "--largest", "2"],
        "noise": ["--store", trained],
        "scaling": ["--store", trained, "--store", random_init, "--steps", "fake.zarr=600"],
        "factorial": ["--store", trained, "--heads", "logistic,mean_difference"],
        "controls": ["--store", trained, "--store", random_init, "--shuffles", "2"],
    }
    for experiment, options in options_of.items():
        assert main([experiment, *options, *FEW_CELLS, "--output", str(tmp_path)]) == 0, experiment
        output = capsys.readouterr().out
        table = pd.read_parquet(tmp_path / f"{experiment}.parquet")
        assert f"{experiment}.parquet in {tmp_path}" in output and len(table)
        measured = measured_rows(table)
        assert set(measured["facet"]) == {"quality"} and set(measured["sigma"].dropna()) == {0.005}
    assert "the random-initialised backbone" in output
    assert list((tmp_path / "fits").glob("*.npz"))
    combined = pd.read_parquet(tmp_path / "combinations.parquet")
    assert set(combined["stage_runs"]) == {"B1 0-2, B2 3-5"}
    assert 600 in set(pd.read_parquet(tmp_path / "scaling.parquet")["steps"])
    assert draw(["--results", str(tmp_path), "--output", str(tmp_path / "figures")]) == 0


def test_mistakes_end_in_status_2_and_one_sentence(stores, tmp_path, capsys):
    trained, random_init = stores
    for options, message in (
        (["noise", "--store", str(tmp_path / "none.zarr")], "no feature store"),
        (["noise", "--store", trained, "--store", trained], "hold the same noise"),
        (["combinations", "--store", trained, "--stages", "3-1"], "Stages are written like 0-2,3-5,6-7"),
        (["combinations", "--store", trained, "--stages", "no.parquet"], "There is no table at no.parquet"),
        (["scaling", "--store", trained, "--steps", "600"], "expected NAME=VALUE"),
        (["scaling", "--store", trained, "--steps", "fake=many"], "expected a number, got 'many'"),
        (["controls", "--store", random_init], "None of the stores is of a trained backbone"),
        (["controls", "--store", trained, "--blocks", "9"], "no block 9"),
        (["factorial", "--store", random_init], "has random weights"),
        (["noise", "--store", trained, "--workers", "0"], "expected 1 or more"),
    ):
        assert_refused(capsys, [*options, "--output", str(tmp_path / "results")], message)
    assert not (tmp_path / "results").exists()


def test_every_experiment_has_help_with_defaults(capsys):
    for experiment in ("reward-curve", "combinations", "noise", "scaling", "controls", "factorial"):
        with pytest.raises(SystemExit) as stop:
            main([experiment, "--help"])
        assert stop.value.code == 0
        output = capsys.readouterr().out
        assert "--store" in output and "(default: cache/results)" in output
    assert_refused(capsys, ["alchemy"], "Unknown 'alchemy': choose one of reward-curve")


def test_keep_leaves_a_table_of_the_same_inputs(stores, tmp_path, capsys):
    trained, random_init = stores
    command = ["controls", "--store", trained, "--shuffles", "0", *FEW_CELLS, "--output", str(tmp_path), "--keep"]
    assert main(command) == 0
    assert "Kept" not in capsys.readouterr().out
    table = tmp_path / "controls.parquet"
    written = table.stat().st_mtime_ns
    assert main(command) == 0
    assert "Kept" in capsys.readouterr().out and table.stat().st_mtime_ns == written
    for options, reason in (
        (["--store", random_init], "it was made from fake.zarr and the stores are fake.zarr, random.zarr"),
        (["--store", random_init, "--sigmas", "0.6"], "sigmas was [0.005] and is [0.6]"),
        (["--store", random_init, "--split-by", "prompt", "--seed", "3"], "it was made from other pairs"),
    ):
        kept = [word for word in command if "--sigmas" not in options or word not in ("--sigmas", "0.005")]
        assert main([*kept, *options]) == 0
        assert f"Anew:     controls.parquet, because {reason}" in capsys.readouterr().out
    table.write_bytes(table.read_bytes()[:-40])
    assert main(command) == 0
    assert "does not record" in capsys.readouterr().out and len(pd.read_parquet(table)) > 1
    # A table of an older version does not record its inputs.
    pd.read_parquet(table).to_parquet(table)
    assert main(command) == 0
    assert "it does not record what it was made from" in capsys.readouterr().out


def test_a_store_made_again_is_measured_again(tmp_path, capsys):
    pairs = make_pairs()
    store = write_store(tmp_path / "fake.zarr", pairs)
    command = ["controls", "--store", str(store), "--shuffles", "0", *FEW_CELLS, "--output", str(tmp_path), "--keep"]
    assert main(command) == 0
    before = pd.read_parquet(tmp_path / "controls.parquet")["value"]
    shutil.rmtree(store)
    write_store(store, pairs, seed=7)
    capsys.readouterr()
    assert main(command) == 0
    assert "because the features of fake.zarr are others" in capsys.readouterr().out
    assert not pd.read_parquet(tmp_path / "controls.parquet")["value"].equals(before)


def test_a_damaged_table_of_similarity_or_stages_is_refused(stores, tmp_path, capsys):
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 cut")
    pd.DataFrame({"block": [1]}).to_csv(tmp_path / "few.csv", index=False)
    for options, message in (
        (["--similarity", str(tmp_path / "cut.parquet")], "is damaged or not a Parquet table"),
        (["--stages", str(tmp_path / "few.csv")], "few.csv has no stage, first_block, last_block"),
        (["--similarity", str(tmp_path / "few.csv")], "few.csv has no other, value"),
    ):
        command = ["combinations", "--store", stores[0], *options, "--output", str(tmp_path / "new")]
        assert_refused(capsys, command, message)
    assert not (tmp_path / "new").exists()


def test_keep_compares_all_stores_of_scaling(stores, tmp_path, capsys):
    trained, random_init = stores
    command = ["scaling", "--store", trained, "--steps", "fake.zarr=600", *FEW_CELLS, "--output", str(tmp_path)]
    command.append("--keep")
    assert main(command) == 0
    assert main([*command, "--store", random_init]) == 0
    assert "Kept" not in capsys.readouterr().out
    assert main([*command, "--store", random_init]) == 0
    assert "Kept" in capsys.readouterr().out
