"""Reference rewards in a reward curve: scored on the same pairs, compared, drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probing.analysis.engine import CellResults, Sites
from probing.analysis.reward_curve import compare, measure_curve, measure_reference
from probing.errors import UserError
from probing.measure import main
from probing.plots import figure_comparisons, figure_reward_curves, plot_reward_curve
from tests.fakes.disk_store import write_store
from tests.fakes.fake_store import FakeStore, make_pairs


@pytest.fixture(scope="module")
def pairs():
    return make_pairs()


@pytest.fixture(scope="module")
def truth(pairs):
    """The true reward of every item."""
    sides = [
        pairs[[side, f"reward_{side}"]].set_axis(["item_id", "reward"], axis="columns") for side in ("first", "second")
    ]
    return pd.concat(sides, ignore_index=True)


def test_the_true_reward_reaches_the_ceiling(pairs, truth):
    table = measure_reference("truth", truth, FakeStore(pairs), pairs).table
    assert table["control"].tolist() == ["reference"] * 3 and set(table["model"]) == {"truth"}
    assert ((table["ci_low"] <= table["ceiling"]) & (table["ceiling"] <= table["ci_high"])).all()


def test_only_the_order_of_rewards_counts(pairs, truth):
    rewards = truth.assign(reward=truth["reward"] + np.random.default_rng(0).normal(size=len(truth)))
    store = FakeStore(pairs, order=np.random.default_rng(1).permutation(len(truth)))
    results = measure_reference("other", rewards.sample(frac=1, random_state=2), store, pairs)
    reward_of = rewards.set_index("item_id")["reward"]
    test = pairs[pairs["split"] == "test"]
    right = (reward_of.loc[test["first"]].to_numpy() > reward_of.loc[test["second"]].to_numpy()) == (
        test["choice"] == 1
    )
    by_hand = pd.concat([pd.Series({"all": right.mean()}), right.groupby(test["facet"]).mean()])
    assert results.table.set_index("facet")["value"].to_dict() == pytest.approx(by_hand.to_dict())
    monotone = rewards.assign(reward=np.exp(3 * rewards["reward"]))
    again = measure_reference("other", monotone, store, pairs)
    pd.testing.assert_frame_equal(again.table, results.table)


def test_each_facet_may_have_its_rewards(pairs, truth):
    both = pd.concat(
        [truth.assign(facet="alignment"), truth.assign(facet="quality", reward=-truth["reward"])], ignore_index=True
    )
    values = measure_reference("turned", both, FakeStore(pairs), pairs).table.set_index("facet")["value"]
    # They are not one reward of every pair.
    assert set(values.index) == {"alignment", "quality"}
    straight = measure_reference("truth", truth, FakeStore(pairs), pairs).table.set_index("facet")["value"]
    assert values["alignment"] == straight["alignment"]
    assert values["quality"] == pytest.approx(1 - straight["quality"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.drop(columns="reward"), "have no column reward"),
        (lambda t: pd.concat([t, t.head(1)]), "twice"),
        (lambda t: t.iloc[:-1], "lack a finite one for 1 items of all's test pairs"),
        (lambda t: t.assign(reward=t["reward"].where(t.index > 700, np.nan)), "lack a finite one"),
    ],
)
def test_bad_rewards_are_refused(pairs, truth, damage, message):
    with pytest.raises(UserError, match=message):
        measure_reference("other", damage(truth), FakeStore(pairs), pairs)


def test_a_reference_is_compared_and_drawn(pairs, truth):
    store = FakeStore(pairs)
    curve = measure_curve(store, pairs, shuffles=2, sites=Sites(sigmas=(0.6,)))
    joined = CellResults.join(curve, measure_reference("truth", truth, store, pairs))
    compared = compare(joined)
    references = compared[compared["baseline"] == "reference"].set_index("facet")
    assert set(references.index) == {"all", "alignment", "quality"} and set(references["baseline_chosen"]) == {"truth"}
    # The planted direction carries the reward and noise, so no probe can be above the reward itself.
    assert (references["ci_low"] < 0).all() and references["statement"].str.contains("truth (", regex=False).all()
    drawn = plot_reward_curve(joined.table, facet="quality")
    line = next(line for line in drawn.get_lines() if line.get_color() == "#CC79A7")
    expected = joined.table.query("control == 'reference' and facet == 'quality'")["value"].item()
    assert set(line.get_ydata()) == {expected}
    assert "truth" in {text.get_text() for text in drawn.get_legend().get_texts()}
    figure = figure_reward_curves(joined.table)
    assert "truth" not in figure.get_suptitle() and "other rewards on the same pairs" in _legend_titles(figure)
    rows = {label.get_text() for ax in figure_comparisons(compared).axes for label in ax.get_yticklabels()}
    assert "minus truth" in rows


def test_the_command_reads_rewards_from_files(pairs, truth, tmp_path, capsys):
    store = write_store(tmp_path / "fake.zarr", pairs)
    truth.to_csv(tmp_path / "truth.csv", index=False)
    options = [
        "reward-curve",
        "--store",
        str(store),
        "--sigmas",
        "0.005",
        "--streams",
        "image",
        "--blocks",
        "4",
        "--shuffles",
        "0",
    ]
    reference = ["--references", f"truth={tmp_path / 'truth.csv'}", "--output", str(tmp_path / "results")]
    assert main([*options, *reference]) == 0
    assert "truth (" in capsys.readouterr().out
    table = pd.read_parquet(tmp_path / "results" / "reward_curve.parquet")
    assert table.query("control == 'reference'")["model"].tolist() == ["truth"] * 3
    assert main([*options, "--references", f"truth={tmp_path / 'none.csv'}", "--output", str(tmp_path / "new")]) == 2
    assert "There is no file" in capsys.readouterr().err and not (tmp_path / "new").exists()
    repeated = ["--references", f"truth={tmp_path / 'truth.csv'}"] * 2
    assert main([*options, *repeated, "--output", str(tmp_path / "new")]) == 2
    assert "'truth' is given twice" in capsys.readouterr().err and not (tmp_path / "new").exists()
    assert main([*options, "--references", "truth.csv", "--output", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert "expected NAME=VALUE, got 'truth.csv'" in error
    assert error.strip().count("\n") == 0 and not (tmp_path / "new").exists()


def _legend_titles(figure) -> str:
    return " ".join(legend.get_title().get_text() for legend in figure.legends).replace("\n", " ")
