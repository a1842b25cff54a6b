"""``python -m probing.measure token-maps`` on a tiny pipeline: tables, figures, errors."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from probing.extract import main as extract
from probing.figures import main as draw
from probing.measure import main as measure
from tests.fakes.tiny_sd3 import T5_LENGTH


def tokens(arguments):
    return measure(["token-maps", *arguments])


def fit(arguments):
    return measure(["reward-curve", *arguments, "--shuffles", "0"])


@pytest.fixture(scope="module")
def fitted(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    small = ["--data", "testbed", "--limit", "96", "--resolution", "16", "--t5-length", str(T5_LENGTH)]
    store = folder / "tiny.zarr"
    assert extract(["--model", str(tiny_folder), *small, "--sigmas", "0.005", "--output", str(store)]) == 0
    assert fit(["--store", str(store), "--facets", "alignment,quality", "--output", str(folder / "results")]) == 0
    return store, folder / "results" / "reward_curve.parquet", small[:4]


@pytest.mark.usefixtures("blank_figures")
def test_token_maps_are_written_and_drawn(tiny_folder, fitted, tmp_path, capsys):
    store, curve, data = fitted
    command = ["--store", str(store), "--curve", str(curve), "--model", str(tiny_folder), *data]
    assert tokens([*command, "--count", "1", "--output", str(tmp_path)]) == 0
    assert "alignment: σ = 0.005, block" in capsys.readouterr().out
    table = pd.read_parquet(tmp_path / "token_maps.parquet")
    for item in table.to_dict("records"):
        scores = [float(score) for score in item["scores"].split()]
        assert len(scores) == item["rows"] * item["columns"] == 16
        assert np.mean(scores) == pytest.approx(item["store_reward"], rel=1e-3, abs=1e-4)
    assert set(table["facet"]) == {"alignment", "quality"} and (table["split"] == "test").all()
    assert draw(["--results", str(tmp_path), "--output", str(tmp_path)]) == 0


def test_a_store_of_another_transformer_needs_that_transformer(tiny_folder, tmp_path, capsys):
    tuned = tmp_path / "tuned"
    shutil.copytree(tiny_folder / "transformer", tuned)
    path = tuned / "diffusion_pytorch_model.safetensors"
    save_file({name: 1.1 * weight for name, weight in load_file(path).items()}, path)
    data = ["--data", "testbed", "--limit", "96"]
    sizes = ["--resolution", "16", "--t5-length", str(T5_LENGTH)]
    store, model = tmp_path / "tuned.zarr", ["--model", str(tiny_folder)]
    assert extract([*model, "--transformer", str(tuned), *data, *sizes, "--output", str(store)]) == 0
    assert fit(["--store", str(store), "--facets", "quality", "--output", str(tmp_path)]) == 0
    curve = ["--curve", str(tmp_path / "reward_curve.parquet"), "--output", str(tmp_path)]
    command = ["--store", str(store), *curve, *model, *data, "--count", "1"]
    capsys.readouterr()
    assert tokens(command) == 2
    error = capsys.readouterr().err
    assert "tiny-sd3+tuned in the store and tiny-sd3 here" in error and "by --transformer" in error
    assert tokens(["--store", str(store), *curve, *data]) == 2
    assert (
        "made with a changed transformer of tiny-sd3, tuned; give that by --transformer or --lora"
        in capsys.readouterr().err
    )
    assert tokens([*command, "--transformer", str(tiny_folder / "transformer")]) == 2
    assert "The store was made with another model" in capsys.readouterr().err
    assert tokens([*command, "--transformer", str(tuned)]) == 0


@pytest.mark.slow
def test_a_curve_of_another_store_is_refused(tiny_folder, fitted, tmp_path, capsys):
    store, curve, data = fitted
    command = ["--store", str(store), "--model", str(tiny_folder), *data, "--count", "1"]

    def refused(curve, *options):
        assert tokens([*command, "--curve", str(curve), "--output", str(tmp_path / "none"), *options]) == 2
        error = capsys.readouterr().err
        assert error.strip().count("\n") == 0 and not (tmp_path / "none").exists()
        return error

    # The same name and model with other features.
    again = tmp_path / "again" / "tiny.zarr"
    small = [*data, "--resolution", "16", "--t5-length", str(T5_LENGTH), "--sigmas", "0.005", "--seed", "3"]
    assert extract(["--model", str(tiny_folder), *small, "--output", str(again)]) == 0
    facets = ["--facets", "alignment,quality"]
    assert fit(["--store", str(again), *facets, "--output", str(tmp_path / "again")]) == 0
    capsys.readouterr()
    assert "was not made from tiny.zarr as it is now" in refused(tmp_path / "again" / "reward_curve.parquet")
    assert "fitted on other pairs or another split" in refused(curve, "--split-by", "prompt", "--seed", "4")
    # A curve of an older version is compared by its columns.
    old, rows = tmp_path / "old.parquet", pd.read_parquet(curve)
    rows.assign(revision="another").to_parquet(old)
    assert "revision is another in the curve" in refused(old)
    rows.drop(columns="scaling").to_parquet(old)
    assert "has no scaling" in refused(old)
    old.write_bytes(b"PAR1 cut")
    assert "is damaged" in refused(old)
    rows.to_parquet(old)
    assert tokens([*command, "--curve", str(old), "--output", str(tmp_path / "maps")]) == 0


def test_mistakes_end_in_status_2_and_one_sentence(tiny_folder, fitted, tmp_path, capsys):
    store, curve, data = fitted
    command = ["--store", str(store), *data, "--output", str(tmp_path / "none")]
    curve_option = ["--curve", str(curve)]
    for options, message in (
        (
            ["--model", "testbed-xs", *curve_option],
            "The store was made with another model: model is tiny-sd3 in the store and testbed-xs here",
        ),
        (
            ["--model", str(tiny_folder), *curve_option, "--sigma", "0.4"],
            "no trained probe on the mean of image tokens",
        ),
        (["--model", str(tiny_folder), *curve_option, "--facets", "charm"], "for facet charm"),
        (["--model", str(tiny_folder), "--curve", str(tmp_path / "none.parquet")], "probing.measure reward-curve"),
        (["--model", str(tiny_folder)], "--curve"),
        (["--model", str(tiny_folder), *curve_option, "--count", "0"], "expected 1 or more"),
    ):
        assert tokens([*command, *options]) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error and error.strip().count("\n") == 0
    assert not (tmp_path / "none").exists()
