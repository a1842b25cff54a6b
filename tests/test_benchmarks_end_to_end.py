"""Every benchmark from its published files to features, a probe, and a table of scores, by the commands alone."""

from __future__ import annotations

import pandas as pd
import pytest

from probing.audit import main as audit
from probing.extract import main as extract
from probing.measure import main as measure
from probing.preferences import BENCHMARKS, load_pairs
from probing.score import main as score
from probing.statistics import RULES
from tests.preferences.published import write

OFFICIAL = ["--split-by", "official"]
BY_PROMPT = ["--split-by", "prompt"]


@pytest.mark.parametrize(
    ("name", "prompts", "split"),
    [
        ("hpdv3", 16, OFFICIAL),
        pytest.param("hpdv2", 12, OFFICIAL, marks=pytest.mark.slow),
        pytest.param("imagereward", 20, BY_PROMPT, marks=pytest.mark.slow),
        pytest.param("imagereward-db", 12, OFFICIAL, marks=pytest.mark.slow),
        ("pickapic-v1", 14, OFFICIAL),
        ("genai-bench", 40, BY_PROMPT),
    ],
)
def test_from_disk_to_features_to_a_scored_table(tiny_folder, tmp_path, capsys, name, prompts, split):
    root = write(name, tmp_path / "data", prompts)
    data = ["--data", name, "--data-root", str(root)]
    store, results, table = tmp_path / "s.zarr", tmp_path / "results", tmp_path / "table.csv"
    command = ["--model", str(tiny_folder), *data, "--resolution", "16", "--t5-length", "12", "--blocks", "1,3"]
    assert audit([*data, "--least-side", "8", "--output", str(tmp_path / "audit")]) == 0
    assert extract([*command, "--output", str(store)]) == 0
    assert measure(["reward-curve", "--store", str(store), *split, "--shuffles", "0", "--output", str(results)]) == 0
    capsys.readouterr()
    scored = ["--scores", str(results / "rewards.parquet"), "--output", str(table)]
    assert score([*data, *scored, *(["--partial"] if split is BY_PROMPT else [])]) == 0
    printed = capsys.readouterr().out
    assert f"* {BENCHMARKS[name].rule}" in printed and "the rule of the benchmark's authors" in printed
    rows = pd.read_csv(table)
    assert set(rows["rule"]) == set(RULES)
    official = rows[rows["rule"] == BENCHMARKS[name].rule]
    assert official["value"].between(0, 1).all() and (official["ci_low"] <= official["value"]).all()

    # The number by hand, from the rewards and the pairs.
    rewards = pd.read_parquet(results / "rewards.parquet")
    pairs = load_pairs(name, root=root).pairs
    # The command scores each facet of the data; rewards of all pairs together are there as well.
    for facet, of_facet in rewards[rewards["facet"].isin(pairs["facet"])].groupby("facet"):
        reward = of_facet.set_index("item_id")["reward"]
        test = pairs[(pairs["split"] == "test") & (pairs["facet"] == facet) & (pairs["choice"] != 0.5)]
        margin = (test["first"].map(reward) - test["second"].map(reward)).dropna()
        right = (margin > 0) == (test.loc[margin.index, "choice"] == 1)
        accuracy = rows[(rows["facet"] == facet) & (rows["rule"] == "micro-wrong")]["value"].iloc[0]
        assert accuracy == pytest.approx(right.mean())


def test_a_split_by_source_model_end_to_end(tiny_folder, tmp_path, capsys):
    root = write("hpdv3", tmp_path / "data", 40)
    data = ["--data", "hpdv3", "--data-root", str(root)]
    command = ["--model", str(tiny_folder), *data, "--resolution", "16", "--t5-length", "12", "--blocks", "3"]
    assert extract([*command, "--output", str(tmp_path / "s.zarr")]) == 0
    options = [
        "--store",
        str(tmp_path / "s.zarr"),
        "--split-by",
        "source-model",
        "--held-out",
        "flux",
        "--shuffles",
        "0",
    ]
    assert measure(["reward-curve", *options, "--output", str(tmp_path / "results")]) == 0
    outcomes = pd.read_parquet(tmp_path / "results" / "outcomes.parquet")
    pairs = load_pairs("hpdv3", root=root).pairs.set_index("pair_id")
    source_models = pairs.loc[outcomes["pair_id"], ["source_model_first", "source_model_second"]]
    assert (source_models == "flux").any(axis=1).all()
    assert measure(["reward-curve", *options[:-3], "dalle"]) == 2
    assert "source models dalle to hold out" in capsys.readouterr().err
