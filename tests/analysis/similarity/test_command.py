"""``python -m probing.measure similarity`` on a tiny pipeline: tables, plans, errors."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from probing.analysis.similarity.tables import COLUMNS
from probing.figures import main as draw
from probing.measure import main as measure
from tests.fakes.tiny_sd3 import BLOCKS, T5_LENGTH

SMALL = ["--data", "testbed", "--limit", "24", "--resolution", "16", "--t5-length", str(T5_LENGTH)]


def replaced(options, name, value):
    """Replace the value of an option, or append it."""
    index = options.index(name) if name in options else len(options)
    return [*options[:index], name, value, *options[index + 2 :]]


def main(arguments):
    return measure(["similarity", *arguments])


@pytest.fixture(scope="module")
def results(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("similarity")
    options = ["--sigmas", "0.005,0.6", "--steps", "4", "--trajectory-steps", "0,3", "--random-init"]
    options += ["--streams", "image,text"]
    assert main(["--model", str(tiny_folder), *SMALL, *options, "--output", str(folder)]) == 0
    return folder


def test_tables_record_what_was_measured(results):
    tables = {path.stem: pd.read_parquet(path) for path in results.glob("*.parquet")}
    assert set(tables) == {"similarity", "trajectory_similarity", "stages", "stage_similarity", "similarity_by_prompt"}
    images = tables["similarity"]
    assert tuple(images.columns) == COLUMNS
    assert set(images["control"]) == {"trained", "random-init"} and set(images["measure"]) == {"cka", "cosine"}
    assert set(images["part"]) == {"all", "clip", "t5"} and set(images["source"]) == {"images"}
    assert (images["num_blocks"] == BLOCKS).all() and (images["split"] == "train").all()
    assert tables["trajectory_similarity"]["step"].unique().tolist() == [0, 3]
    assert (tables["trajectory_similarity"]["steps"] == 4).all()
    for table in tables.values():
        assert (table["model"] == "tiny-sd3").all()
    # Random weights are other weights.
    assert images.groupby("control")["revision"].nunique().tolist() == [1, 1] and images["revision"].nunique() == 2
    diagonal = images[images["block"] == images["other"]]
    np.testing.assert_allclose(diagonal["value"], 1, atol=1e-5)


@pytest.mark.usefixtures("blank_figures")
def test_the_figures_are_drawn_from_the_tables(results, tmp_path, capsys):
    # One measure, one part of the tokens: fewer panels are drawn sooner.
    for path in results.glob("*.parquet"):
        table = pd.read_parquet(path)
        for column, value in (("measure", "cosine"), ("part", "all"), ("stream", "image")):
            table = table[table[column] == value] if column in table else table
        table.to_parquet(tmp_path / path.name)
    assert draw(["--results", str(tmp_path), "--output", str(tmp_path), "--no-page"]) == 0
    output = capsys.readouterr().out
    assert "stage_similarity.png" in output and "Not drawn" in output and "token_maps" in output
    assert (tmp_path / "trajectory_similarity.png").is_file()


def test_an_older_trajectory_table_is_removed(tiny_folder, tmp_path, capsys):
    (tmp_path / "trajectory_similarity.parquet").write_bytes(b"of another run")
    options = ["--trajectory-steps", "none", "--sigmas", "0.3", "--measures", "cosine", "--output", str(tmp_path)]
    assert main(["--model", str(tiny_folder), *SMALL, *options]) == 0
    assert not (tmp_path / "trajectory_similarity.parquet").exists()
    assert "images, all tokens, cosine, σ = 0.3: B1 0" in capsys.readouterr().out


def test_keep_leaves_tables_of_the_same_weights(tiny_folder, tmp_path, capsys):
    options = [
        *SMALL,
        "--sigmas",
        "0.3",
        "--trajectory-steps",
        "none",
        "--measures",
        "cosine",
        "--random-init",
        "--keep",
    ]
    options += ["--output", str(tmp_path / "results")]
    model = shutil.copytree(tiny_folder, tmp_path / "model")
    table = tmp_path / "results" / "similarity.parquet"
    assert main(["--model", str(model), *options]) == 0
    made = table.stat().st_mtime_ns
    assert main(["--model", str(model), *options]) == 0
    assert "Kept:" in capsys.readouterr().out and table.stat().st_mtime_ns == made
    # Other options are another measurement.
    assert main(["--model", str(model), *options, "--shortest-stage", "2"]) == 0
    assert "because shortest_stage was 1 and is 2" in capsys.readouterr().out
    (table.parent / "stages.parquet").write_bytes(b"PAR1 cut")
    assert main(["--model", str(model), *options]) == 0
    assert "Anew:     similarity.parquet" in capsys.readouterr().out
    assert len(pd.read_parquet(table.parent / "stages.parquet"))
    assert main(["--model", str(model), *replaced(options, "--limit", "30")]) == 0
    assert "made from other pairs" in capsys.readouterr().out
    assert main(["--model", str(model), *options]) == 0
    before = pd.read_parquet(table).groupby("control")["revision"].unique()
    weights = model / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({name: 1.1 * tensor for name, tensor in load_file(weights).items()}, weights)
    assert main(["--model", str(model), *options]) == 0
    after = pd.read_parquet(table).groupby("control")["revision"].unique()
    assert "because the weights are others" in capsys.readouterr().out
    # The control's weights depend on the seed alone.
    assert after["trained"] != before["trained"] and after["random-init"] == before["random-init"]


def test_tables_of_another_model_are_not_replaced(tiny_folder, tmp_path, capsys, monkeypatch):
    other = shutil.copytree(tiny_folder, tmp_path / "other")
    options = [
        *SMALL,
        "--sigmas",
        "0.3",
        "--trajectory-steps",
        "none",
        "--measures",
        "cosine",
        "--output",
        str(tmp_path),
    ]
    assert main(["--model", str(tiny_folder), *options]) == 0
    before = (tmp_path / "similarity.parquet").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("probing.backbones.load_backbone", pytest.fail)
        assert main(["--model", str(other), *options]) == 2
    error = capsys.readouterr().err
    assert "holds the results of tiny-sd3, and this command would replace them by those of other" in error
    assert (tmp_path / "similarity.parquet").read_bytes() == before
    assert main(["--model", str(other), *options, "--overwrite"]) == 0
    assert set(pd.read_parquet(tmp_path / "similarity.parquet")["model"]) == {"other"}


def test_a_dry_run_plans_and_writes_nothing(tiny_folder, tmp_path, capsys):
    options = ["--steps", "4", "--trajectory-steps", "0,3", "--guidance", "4.5", "--sigmas", "0.1", "--dry-run"]
    assert main(["--model", str(tiny_folder), *SMALL, *options, "--output", str(tmp_path / "none")]) == 0
    output = capsys.readouterr().out
    # 24 items; 5 prompts read twice, with three guided steps before the last read.
    assert "24 of 5 prompts" in output and f"forwards  {24 + 5 * 2 + 5 * 2 * 3}" in output
    assert not (tmp_path / "none").exists()


def test_mistakes_end_in_status_2_and_one_sentence(tiny_folder, tmp_path, capsys):
    for options, message in (
        (["--measures", "cca"], "Unknown measure 'cca'"),
        (["--measures", "cka,cka"], "once, got cka, cka"),
        (["--trajectory-steps", "40"], "steps 0 … 39, got 40"),
        (["--sigmas", "2"], "noise level in [0, 1]"),
        (["--shortest-stage", "9"], "--shortest-stage is 1 … 4 blocks"),
        (["--limit", "6"], "at least 2, got 1; raise --limit"),
        (["--streams", "video"], "Unknown stream 'video'"),
    ):
        command = ["--model", str(tiny_folder), *replaced(SMALL, *options), "--output", str(tmp_path / "none")]
        assert main(command) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error and error.strip().count("\n") == 0
    assert main(["--model", "x", "--trajectory-steps", "soon"]) == 2
    assert "expected an integer, got 'soon'" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
