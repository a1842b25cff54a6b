"""``python -m probing.analyse`` on real stores: tables, resume, and errors of one sentence."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest

from probing.analyse import main
from probing.figures import main as draw
from tests.analysis.fake_store import make_pairs
from tests.analysis.test_fit_command import write_store

LITTLE = ["--streams", "image", "--sigmas", "0.005", "--facets", "quality"]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder, pairs = tmp_path_factory.mktemp("stores"), make_pairs()
    said = {"parameters": 1000, "forward_flops": 5000, "data_fingerprint": "planted"}
    return (
        str(write_store(folder / "fake.zarr", pairs, provenance={**said, "revision": "one"})),
        str(write_store(folder / "fresh.zarr", pairs, random_init=True, provenance={**said, "revision": "two"})),
    )


def test_each_experiment_writes_its_table_and_says_what_it_found(stores, tmp_path, capsys):
    trained, fresh = stores
    asked = {
        "combinations": ["--store", trained, "--stages", "0-2,3-5", "--largest", "2"],
        "noise": ["--store", trained],
        "scaling": ["--store", trained, "--store", fresh, "--steps", "fake.zarr=600"],
        "controls": ["--store", trained, "--store", fresh, "--shuffles", "1"],
    }
    for experiment, options in asked.items():
        assert main([experiment, *options, *LITTLE, "--output", str(tmp_path)]) == 0, experiment
        said = capsys.readouterr().out
        table = pd.read_parquet(tmp_path / f"{experiment}.parquet")
        assert f"{experiment}.parquet ({len(table):,} rows)" in said
        assert set(table["facet"]) == {"quality"} and set(table["sigma"].dropna()) == {0.005}
    assert "the random-initialised backbone" in said
    assert not list(tmp_path.glob("*-cells"))
    combined = pd.read_parquet(tmp_path / "combinations.parquet")
    assert set(combined["stage_runs"]) == {"B1 0-2, B2 3-5"}
    assert 600 in set(pd.read_parquet(tmp_path / "scaling.parquet")["steps"])
    assert draw(["--results", str(tmp_path), "--output", str(tmp_path / "figures")]) == 0


def test_mistakes_end_in_status_2_and_one_sentence(stores, tmp_path, capsys):
    trained, fresh = stores
    for options, message in (
        (["noise", "--store", str(tmp_path / "none.zarr")], "no feature store"),
        (["noise", "--store", trained, "--store", trained], "hold the same noise"),
        (["combinations", "--store", trained, "--stages", "3-1"], "Stages are written like 0-2,3-5,6-7"),
        (["combinations", "--store", trained, "--stages", "no.parquet"], "There is no table at no.parquet"),
        (["scaling", "--store", trained, "--steps", "600"], "--steps expects NAME=VALUE"),
        (["scaling", "--store", trained, "--steps", "fake=many"], "--steps expects NAME=VALUE"),
        (["controls", "--store", fresh], "None of the stores is of a trained backbone"),
        (["controls", "--store", trained, "--blocks", "9"], "no block 9"),
    ):
        assert main([*options, "--output", str(tmp_path / "results")]) == 2, options
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error and error.strip().count("\n") == 0
    assert not (tmp_path / "results").exists()


def test_every_experiment_has_help_with_defaults(capsys):
    for experiment in ("combinations", "noise", "scaling", "controls"):
        with pytest.raises(SystemExit) as stop:
            main([experiment, "--help"])
        assert stop.value.code == 0
        said = capsys.readouterr().out
        assert "--store" in said and "(default: cache/results)" in said
    with pytest.raises(SystemExit) as stop:
        main(["alchemy"])
    assert stop.value.code == 2


def test_a_table_of_the_same_stores_is_kept_if_so_asked(stores, tmp_path, capsys):
    trained, fresh = stores
    asked = ["controls", "--store", trained, "--shuffles", "0", *LITTLE, "--output", str(tmp_path), "--keep"]
    assert main(asked) == 0
    assert "Kept" not in capsys.readouterr().out
    table = tmp_path / "controls.parquet"
    written = table.stat().st_mtime_ns
    assert main(asked) == 0
    assert "Kept" in capsys.readouterr().out and table.stat().st_mtime_ns == written
    for options, reason in (
        (["--store", fresh], "it was made from fake.zarr and the stores are fake.zarr, fresh.zarr"),
        (["--store", fresh, "--sigmas", "0.6"], "sigmas was [0.005] and is [0.6]"),
        (["--store", fresh, "--split-by", "prompt", "--seed", "3"], "it was made from other pairs"),
    ):
        given = [word for word in asked if "--sigmas" not in options or word not in ("--sigmas", "0.005")]
        assert main([*given, *options]) == 0
        assert f"Anew:     controls.parquet, because {reason}" in capsys.readouterr().out
    table.write_bytes(table.read_bytes()[:-40])
    assert main(asked) == 0
    assert "does not record" in capsys.readouterr().out and len(pd.read_parquet(table)) > 1
    # A table of a version that recorded nothing is made anew.
    pd.read_parquet(table).to_parquet(table)
    assert main(asked) == 0
    assert "it does not record what it was made from" in capsys.readouterr().out


def test_a_store_made_again_is_measured_again(tmp_path, capsys):
    pairs = make_pairs()
    store = write_store(tmp_path / "fake.zarr", pairs)
    asked = ["controls", "--store", str(store), "--shuffles", "0", *LITTLE, "--output", str(tmp_path), "--keep"]
    assert main(asked) == 0
    before = pd.read_parquet(tmp_path / "controls.parquet")["value"]
    shutil.rmtree(store)
    write_store(store, pairs, seed=7)
    capsys.readouterr()
    assert main(asked) == 0
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
        assert main(["combinations", "--store", stores[0], *options, "--output", str(tmp_path / "new")]) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error and error.strip().count("\n") == 0
    assert not (tmp_path / "new").exists()


def test_scaling_is_kept_where_all_stores_are_in_it(stores, tmp_path, capsys):
    trained, fresh = stores
    asked = ["scaling", "--store", trained, "--steps", "fake.zarr=600", *LITTLE, "--output", str(tmp_path), "--keep"]
    assert main(asked) == 0
    assert main([*asked, "--store", fresh]) == 0
    assert "Kept" not in capsys.readouterr().out
    assert main([*asked, "--store", fresh]) == 0
    assert "Kept" in capsys.readouterr().out
