"""``python -m probing.similarity`` and ``python -m probing.tokens`` on a tiny pipeline: tables, plans, errors."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from probing.fit import main as fit
from probing.similarity import main
from probing.tokens import main as tokens
from safetensors.torch import load_file, save_file

from probing.analysis.similarity import COLUMNS
from probing.extract import main as extract
from probing.figures import main as draw
from tests.tiny_sd3 import BLOCKS, T5_LENGTH

SMALL = ["--data", "testbed", "--limit", "24", "--resolution", "16", "--t5-length", str(T5_LENGTH)]


def with_options(asked, options):
    """Replace options: each may be given once."""
    kept, skip = [], False
    for word in asked:
        skip = (word in options and word.startswith("--")) or (skip and not word.startswith("--"))
        if not skip:
            kept.append(word)
    return [*kept, *options]


@pytest.fixture(scope="module")
def results(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("similarity")
    asked = [
        "--sigmas",
        "0.005,0.6",
        "--steps",
        "4",
        "--trajectory-steps",
        "0,3",
        "--control",
        "--streams",
        "image,text",
    ]
    assert main(["--model", str(tiny_folder), *SMALL, *asked, "--output", str(folder)]) == 0
    return folder


def test_tables_say_what_was_measured_and_of_what(results):
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
    # Fresh weights are other weights.
    assert images.groupby("control")["revision"].nunique().tolist() == [1, 1] and images["revision"].nunique() == 2
    own = images[images["block"] == images["other"]]
    np.testing.assert_allclose(own["value"], 1, atol=1e-5)


def test_the_figures_are_drawn_from_the_tables(results, tmp_path, capsys):
    assert draw(["--results", str(results), "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "stage_similarity.png" in said and "token_maps: not drawn" in said
    assert (tmp_path / "trajectory_similarity.png").is_file()


def test_without_a_trajectory_none_is_left_behind(tiny_folder, tmp_path, capsys):
    (tmp_path / "trajectory_similarity.parquet").write_bytes(b"of another run")
    asked = ["--trajectory-steps", "none", "--sigmas", "0.3", "--measures", "cosine", "--output", str(tmp_path)]
    assert main(["--model", str(tiny_folder), *SMALL, *asked]) == 0
    assert not (tmp_path / "trajectory_similarity.parquet").exists()
    assert "images, all tokens, cosine, σ = 0.3: B1 0" in capsys.readouterr().out


def test_keep_leaves_tables_of_the_same_weights_and_replaces_those_of_others(tiny_folder, tmp_path, capsys):
    asked = [*SMALL, "--sigmas", "0.3", "--trajectory-steps", "none", "--measures", "cosine", "--control", "--keep"]
    asked += ["--output", str(tmp_path / "results")]
    model = shutil.copytree(tiny_folder, tmp_path / "model")
    table = tmp_path / "results" / "similarity.parquet"
    assert main(["--model", str(model), *asked]) == 0
    made = table.stat().st_mtime_ns
    assert main(["--model", str(model), *asked]) == 0
    assert "Kept:" in capsys.readouterr().out and table.stat().st_mtime_ns == made
    # Other options are other tables.
    assert main(["--model", str(model), *asked, "--shortest-stage", "2"]) == 0
    assert "because shortest_stage was 1 and is 2" in capsys.readouterr().out
    (table.parent / "stages.parquet").write_bytes(b"PAR1 cut")
    assert main(["--model", str(model), *asked]) == 0
    assert "Anew:     similarity.parquet" in capsys.readouterr().out
    assert len(pd.read_parquet(table.parent / "stages.parquet"))
    assert main(with_options(["--model", str(model), *asked], ["--limit", "30"])) == 0
    assert "made from other pairs" in capsys.readouterr().out
    assert main(["--model", str(model), *asked]) == 0
    before = pd.read_parquet(table).groupby("control")["revision"].unique()
    weights = model / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({name: 1.1 * tensor for name, tensor in load_file(weights).items()}, weights)
    assert main(["--model", str(model), *asked]) == 0
    after = pd.read_parquet(table).groupby("control")["revision"].unique()
    assert "because the weights are others" in capsys.readouterr().out
    # The control's weights are drawn from the seed, and are what they were.
    assert after["trained"] != before["trained"] and after["random-init"] == before["random-init"]


def test_tables_of_another_model_are_not_replaced_unasked(tiny_folder, tmp_path, capsys, monkeypatch):
    other = shutil.copytree(tiny_folder, tmp_path / "other")
    asked = [*SMALL, "--sigmas", "0.3", "--trajectory-steps", "none", "--measures", "cosine", "--output", str(tmp_path)]
    assert main(["--model", str(tiny_folder), *asked]) == 0
    before = (tmp_path / "similarity.parquet").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("probing.similarity.load_backbone", pytest.fail)
        assert main(["--model", str(other), *asked]) == 2
    error = capsys.readouterr().err
    assert "holds the results of tiny-sd3, and this command would replace them by those of other" in error
    assert (tmp_path / "similarity.parquet").read_bytes() == before
    assert main(["--model", str(other), *asked, "--overwrite"]) == 0
    assert set(pd.read_parquet(tmp_path / "similarity.parquet")["model"]) == {"other"}


def test_a_dry_run_plans_and_writes_nothing(tiny_folder, tmp_path, capsys):
    asked = ["--steps", "4", "--trajectory-steps", "0,3", "--guidance", "4.5", "--sigmas", "0.1", "--dry-run"]
    assert main(["--model", str(tiny_folder), *SMALL, *asked, "--output", str(tmp_path / "none")]) == 0
    said = capsys.readouterr().out
    # 24 items; 6 prompts read twice, with three guided steps before the last read.
    assert "24 of 5 prompts" in said and f"forwards  {24 + 5 * 2 + 5 * 2 * 3}" in said
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
        assert (
            main(with_options(["--model", str(tiny_folder), *SMALL, "--output", str(tmp_path / "none")], options)) == 2
        )
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error and error.strip().count("\n") == 0
    with pytest.raises(SystemExit, match="2"):
        main(["--model", "x", "--trajectory-steps", "soon"])
    assert not (tmp_path / "none").exists()


@pytest.fixture(scope="module")
def fitted(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    small = ["--data", "testbed", "--limit", "96", "--resolution", "16", "--t5-length", str(T5_LENGTH)]
    store = folder / "tiny.zarr"
    assert extract(["--model", str(tiny_folder), *small, "--sigmas", "0.005", "--output", str(store)]) == 0
    facets = ["--facets", "alignment,quality"]
    assert fit(["--store", str(store), *facets, "--shuffles", "0", "--output", str(folder / "results")]) == 0
    return store, folder / "results", small[:4]


def test_token_maps_are_written_and_drawn(tiny_folder, fitted, tmp_path, capsys):
    store, results, data = fitted
    asked = ["--store", str(store), "--results", str(results), "--model", str(tiny_folder), *data]
    assert tokens([*asked, "--pairs", "1", "--output", str(tmp_path)]) == 0
    assert "alignment: σ = 0.005, block" in capsys.readouterr().out
    table = pd.read_parquet(tmp_path / "token_maps.parquet")
    for item in table.to_dict("records"):
        scores = [float(score) for score in item["scores"].split()]
        assert len(scores) == item["rows"] * item["columns"] == 16
        assert np.mean(scores) == pytest.approx(item["store_reward"], rel=1e-3, abs=1e-4)
    assert set(table["facet"]) == {"alignment", "quality"} and (table["split"] == "test").all()
    assert draw(["--results", str(tmp_path), "--output", str(tmp_path)]) == 0


def test_token_maps_of_another_transformer(tiny_folder, tmp_path, capsys):
    """The store says that there was one, and which."""
    tuned = tmp_path / "tuned"
    shutil.copytree(tiny_folder / "transformer", tuned)
    path = tuned / "diffusion_pytorch_model.safetensors"
    save_file({name: 1.1 * weight for name, weight in load_file(path).items()}, path)
    data = ["--data", "testbed", "--limit", "96"]
    sizes = ["--resolution", "16", "--t5-length", str(T5_LENGTH)]
    store, model = tmp_path / "tuned.zarr", ["--model", str(tiny_folder)]
    assert extract([*model, "--transformer", str(tuned), *data, *sizes, "--output", str(store)]) == 0
    fitting = ["--facets", "quality", "--shuffles", "0", "--output", str(tmp_path)]
    assert fit(["--store", str(store), *fitting]) == 0
    asked = ["--store", str(store), "--results", str(tmp_path), *model, *data, "--pairs", "1"]
    capsys.readouterr()
    assert tokens(asked) == 2
    assert "tiny-sd3+tuned there and tiny-sd3 here" in (said := capsys.readouterr().err) and "by --transformer" in said
    assert tokens(["--store", str(store), "--results", str(tmp_path), *data]) == 2
    assert "made with another transformer, tuned; give its folder by --transformer" in capsys.readouterr().err
    assert tokens([*asked, "--transformer", str(tiny_folder / "transformer")]) == 2
    assert "The store was made with another model" in capsys.readouterr().err
    assert tokens([*asked, "--transformer", str(tuned)]) == 0


def test_a_site_is_not_taken_from_another_stores_curve(tiny_folder, fitted, tmp_path, capsys):
    store, results, data = fitted
    asked = ["--store", str(store), "--model", str(tiny_folder), *data, "--pairs", "1"]

    def refused(folder, *options):
        assert tokens([*asked, "--results", str(folder), "--output", str(tmp_path / "none"), *options]) == 2
        error = capsys.readouterr().err
        assert error.strip().count("\n") == 0 and not (tmp_path / "none").exists()
        return error

    # The same name and model, other features.
    again = tmp_path / "again" / "tiny.zarr"
    small = [*data, "--resolution", "16", "--t5-length", str(T5_LENGTH), "--sigmas", "0.005", "--seed", "3"]
    assert extract(["--model", str(tiny_folder), *small, "--output", str(again)]) == 0
    fitting = ["--facets", "alignment,quality", "--shuffles", "0", "--output", str(tmp_path / "again" / "results")]
    assert fit(["--store", str(again), *fitting]) == 0
    capsys.readouterr()
    assert "was not made from tiny.zarr as it is now" in refused(tmp_path / "again" / "results")
    assert "fitted with --weights None" in refused(results, "--weights", "confidence")
    assert "fitted on other pairs or another split" in refused(results, "--split-by", "prompt", "--seed", "4")
    # A curve of an older version says so in its columns alone.
    old = tmp_path / "old"
    old.mkdir()
    curve = pd.read_parquet(results / "reward_curve.parquet")
    curve.assign(revision="another").to_parquet(old / "reward_curve.parquet")
    assert "revision is another there" in refused(old)
    curve.drop(columns="scaling").to_parquet(old / "reward_curve.parquet")
    assert "has no scaling" in refused(old)
    (old / "reward_curve.parquet").write_bytes(b"PAR1 cut")
    assert "is damaged" in refused(old)
    curve.to_parquet(old / "reward_curve.parquet")
    assert tokens([*asked, "--results", str(old), "--output", str(old)]) == 0


def test_mistakes_of_token_maps(tiny_folder, fitted, tmp_path, capsys):
    store, results, data = fitted
    asked = ["--store", str(store), "--results", str(results), *data, "--output", str(tmp_path / "none")]
    for options, message in (
        (
            ["--model", "testbed-xs"],
            "The store was made with another model: model is tiny-sd3 there and testbed-xs here",
        ),
        (["--model", str(tiny_folder), "--sigma", "0.4"], "no trained probe on the mean of image tokens"),
        (["--model", str(tiny_folder), "--facets", "charm"], "for facet charm"),
        (["--model", str(tiny_folder), "--results", str(tmp_path)], "run python -m probing.fit first"),
        (["--model", str(tiny_folder), "--pairs", "0"], "expected 1 or more"),
    ):
        assert tokens(with_options(asked, options)) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error and error.strip().count("\n") == 0
    assert not (tmp_path / "none").exists()
