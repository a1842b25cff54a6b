"""``python -m probing.reward``: train, score, evaluate; errors of one sentence."""

from __future__ import annotations

import pandas as pd
import pytest

import probing
from probing.console import main as console
from probing.reward.__main__ import main
from tests.fakes.tiny_sd3 import T5_LENGTH

DATA = ["--data", "testbed", "--limit", "96", "--where", "facet == 'quality'"]


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("command")
    store, data = folder / "tiny.zarr", probing.load_pairs("testbed", where="facet == 'quality'", limit=96)
    settings = {"resolution": 16, "t5_length": T5_LENGTH, "sigmas": (0.005,), "device": "cpu"}
    probing.extract(tiny_folder, data, output=store, **settings)
    data.open_image(data.items["item_id"].iloc[0]).save(folder / "picture.png")
    assert main(["train", "--store", str(store), "--blocks", "1,3", "--output", str(folder / "reward")]) == 0
    return folder


def test_a_reward_is_trained_scored_and_evaluated(tiny_folder, trained, tmp_path, capsys):
    of = ["--reward", str(trained / "reward"), "--model", str(tiny_folder), "--device", "cpu"]
    picture = ["--prompt", "a red circle", "--image", str(trained / "picture.png"), "--draws", "3"]
    assert main(["score", *of, *picture]) == 0
    assert "± " in capsys.readouterr().out
    scores = tmp_path / "scores.csv"
    assert main(["score", *of, *DATA, "--split", "test", "--output", str(scores)]) == 0
    assert set(pd.read_csv(scores).columns) == {"item_id", "reward"}
    capsys.readouterr()
    other = ["--scores", f"again={scores}"]
    data = [*DATA, "--split", "test"]
    assert main(["evaluate", *of, *data, *other, "--rules", "micro-half", "--output", str(tmp_path / "tables")]) == 0
    printed = capsys.readouterr().out
    assert "quality: reward less again +0.0 points" in printed
    accuracies = pd.read_csv(tmp_path / "tables" / "accuracies.csv")
    assert accuracies["reward"].tolist() == ["reward", "again"] and accuracies["value"].nunique() == 1
    assert (tmp_path / "tables" / "differences.csv").is_file()
    card = (trained / "reward" / "README.md").read_bytes()
    assert main(["card", "--reward", str(trained / "reward")]) == 0
    assert (trained / "reward" / "README.md").read_bytes() == card


def test_a_reward_is_not_replaced_by_mistake(trained, tmp_path, capsys):
    command = ["train", "--store", str(trained / "tiny.zarr"), "--blocks", "0", "--output"]
    before = (trained / "reward" / "manifest.json").read_bytes()
    assert main([*command, str(trained / "reward")]) == 2
    assert "holds a reward already" in capsys.readouterr().err
    assert (trained / "reward" / "manifest.json").read_bytes() == before
    (tmp_path / "notes.txt").write_text("mine")
    assert main([*command, str(tmp_path)]) == 2
    assert "holds other files (notes.txt)" in capsys.readouterr().err and (tmp_path / "notes.txt").is_file()


def test_a_dry_run_writes_nothing(trained, tmp_path, capsys):
    command = ["train", "--store", str(trained / "tiny.zarr"), "--preset", "dit-reward", "--dry-run"]
    assert main([*command, "--output", str(tmp_path / "r")]) == 0
    assert "are blocks 1, 2, 3 of 4" in capsys.readouterr().out and not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--store", "none.zarr", "--output", "r"], "There is no feature store at none.zarr"),
        (["score", "--reward", "none"], "There is no reward at none"),
        (["score", "--reward", "none", "--prompt", "words"], "Give --prompt and --image together"),
        (["score", "--reward", "none", "--output", "scores.txt"], "is a .csv or .parquet file"),
        (["evaluate"], "Give --reward or --scores NAME=FILE"),
        (["evaluate", "--reward", "a/r", "--reward", "b/r"], "each of a name of its own"),
        (["serve-all"], "Unknown 'serve-all'"),
    ],
)
def test_mistakes_end_in_status_2_and_one_sentence(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and error.strip().count("\n") == 0
    assert not list(tmp_path.iterdir())


def test_the_console_command_has_the_verbs(capsys):
    with pytest.raises(SystemExit, match="0"):
        console(["reward", "--help"])
    assert "train a head on a feature store" in capsys.readouterr().out
