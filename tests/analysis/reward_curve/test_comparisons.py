"""Reward curves with controls, and comparisons that select on training pairs only."""

from __future__ import annotations

import numpy as np
import pytest

from probing.analysis.engine import CellResults, Sites
from probing.analysis.reward_curve import compare, measure_curve
from probing.analysis.reward_curve.comparisons import COLUMNS, _statement
from probing.errors import UserError
from probing.result_tables import best_cell
from probing.statistics import holm, paired_difference
from tests.fakes.fake_store import FakeStore, make_pairs


@pytest.fixture(scope="module")
def pairs():
    return make_pairs()


@pytest.fixture(scope="module")
def curve(pairs):
    return measure_curve(FakeStore(pairs), pairs, random_init=[FakeStore(pairs, random_init=True, seed=1)])


@pytest.fixture(scope="module")
def comparisons(curve):
    return compare(curve)


def test_the_curve_has_every_control(curve):
    counts = curve.table.groupby("control").size().to_dict()
    assert counts == {"trained": 66, "random-init": 66, "latents": 3, "shuffled": 66}
    assert curve.table["cell"].is_unique
    assert set(curve.outcomes.columns[3:]) == set(curve.table["cell"])
    shuffled = curve.table.query("control == 'shuffled'")
    assert shuffled["value"].mean() == pytest.approx(0.5, abs=0.04) and (shuffled["draws"] == 20).all()


def test_only_planted_facets_differ(comparisons):
    assert tuple(comparisons.columns) == COLUMNS
    assert len(comparisons) == 3 * 2 * 2 * 2 + 3 * 2
    for row in comparisons.itertuples():
        if row.facet == "all" and row.stream == "text":
            continue  # half of its pairs carry a signal
        planted = row.scope == "overall" or row.stream == "image" or row.facet == "alignment"
        assert (row.p_value_holm <= 0.05) == planted, row.statement
        assert (row.verdict == "above") == planted and ("is above" in row.statement) == planted
        assert row.family == f"all rows: {len(comparisons)} tests"
        assert ("not distinguished" in row.statement) == (not planted)
        if planted:
            assert row.block >= (3 if row.stream == "image" else 2)


def test_a_difference_is_that_of_the_named_cells(curve, comparisons):
    row = comparisons.iloc[0]
    of_facet = curve.outcomes[curve.outcomes["facet"] == row["facet"]]
    expected = paired_difference(
        of_facet[row["cell"]].to_numpy(), of_facet[row["baseline_cell"]].to_numpy(), of_facet["prompt_id"].to_numpy()
    )
    assert row["difference"] == pytest.approx(expected.estimate)
    assert row["difference"] == pytest.approx(row["value"] - row["baseline_value"])
    assert (row["ci_low"], row["ci_high"], row["p_value"]) == pytest.approx(
        (expected.low, expected.high, expected.p_value)
    )
    np.testing.assert_allclose(comparisons["p_value_holm"], holm(comparisons["p_value"].to_numpy()))


def test_the_selection_ignores_the_test_split(curve, comparisons):
    changed = curve.table.copy()
    changed["value"] = np.random.default_rng(0).random(len(changed))
    again = compare(CellResults(changed, curve.outcomes, curve.margins))
    assert again["cell"].tolist() == comparisons["cell"].tolist()
    assert again["baseline_cell"].tolist() == comparisons["baseline_cell"].tolist()
    trained = curve.table.query("control == 'trained' and facet == 'quality'")
    assert best_cell(trained)["cv_accuracy"] == trained["cv_accuracy"].max()


def test_statements_follow_the_verdict(comparisons):
    row = {**comparisons.iloc[0].to_dict(), "difference": 0.031, "ci_low": 0.002, "ci_high": 0.06, "p_value_holm": 0.2}
    # An interval away from zero is no verdict: the corrected p-value decides.
    assert "is not distinguished from" in _statement({**row, "verdict": "not distinguished"})
    assert _statement({**row, "verdict": "not distinguished"}).endswith("[+0.2, +6.0], p = 0.2 after Holm.")
    assert "is above" in _statement({**row, "verdict": "above"})
    assert "is below" in _statement({**row, "verdict": "below"})
    assert "too little data to compare" in _statement({**row, "verdict": "too little data"})


def test_few_prompts_give_no_verdict():
    """Fifteen test prompts and a perfect probe: a difference, and no verdict."""
    pairs = make_pairs()
    few = pairs[
        (pairs["split"] == "train") | pairs["prompt_id"].isin(pairs.query("split == 'test'")["prompt_id"].unique()[:15])
    ]
    results = measure_curve(FakeStore(pairs), few, shuffles=0, sites=Sites(("image",), sigmas=(0.6,)))
    table = compare(results)
    assert set(table["verdict"]) == {"too little data"} and (table["n_prompts"] < 20).all()
    assert not table["statement"].str.contains("is above|is below|not distinguished").any()


def test_without_a_random_init_store_latents_remain(pairs):
    alone = measure_curve(FakeStore(pairs), pairs, shuffles=0, facets=["quality"], sites=Sites(sigmas=(0.6,)))
    assert set(compare(alone)["baseline"]) == {"latents"}
    bare = CellResults(alone.table.query("control == 'trained'"), alone.outcomes, alone.margins)
    with pytest.raises(UserError, match="nothing to compare"):
        compare(bare)


def test_incomparable_stores_are_refused(pairs):
    trained, random_init = FakeStore(pairs), FakeStore(pairs, random_init=True)
    with pytest.raises(UserError, match="holds trained weights"):
        measure_curve(trained, pairs, random_init=[FakeStore(pairs)])
    with pytest.raises(UserError, match="give it as the control"):
        measure_curve(random_init, pairs)
    foreign = FakeStore(pairs)
    foreign.attributes["prompts"] = "foreign"
    with pytest.raises(UserError, match="given as trained was extracted with foreign prompts"):
        measure_curve(foreign, pairs)
    random_init.attributes["prompts"] = "empty"
    with pytest.raises(UserError, match="given as control was extracted with empty prompts"):
        measure_curve(trained, pairs, random_init=[random_init])
    del random_init.attributes["prompts"]
    random_init.attributes["resolution"] = 128
    with pytest.raises(UserError, match="resolution is 64 and 128"):
        measure_curve(trained, pairs, random_init=[random_init])
    with pytest.raises(UserError, match="expected 0, or 2 and more"):
        measure_curve(trained, pairs, shuffles=-1)
