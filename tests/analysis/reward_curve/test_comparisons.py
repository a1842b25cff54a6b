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
    return measure_curve(FakeStore(pairs), pairs, random_init=FakeStore(pairs, random_init=True, seed=1))


@pytest.fixture(scope="module")
def comparisons(curve):
    return compare(curve, resamples=2000)


def test_the_curve_has_every_control(curve):
    counts = curve.table.groupby(["control", "seed"]).size().to_dict()
    assert counts == {
        ("trained", 0): 44,
        ("random-init", 0): 44,
        ("latents", 0): 2,
        ("shuffled", 0): 44,
        ("shuffled", 1): 44,
        ("shuffled", 2): 44,
    }
    assert curve.table["cell"].is_unique
    assert set(curve.outcomes.columns[3:]) == set(curve.table["cell"])
    shuffled = curve.table.query("control == 'shuffled'")
    assert shuffled["value"].mean() == pytest.approx(0.5, abs=0.04)


def test_only_planted_facets_differ(comparisons):
    assert tuple(comparisons.columns) == COLUMNS
    assert len(comparisons) == 2 * 2 * 2 * 2 + 2 * 2
    for row in comparisons.itertuples():
        planted = row.scope == "overall" or row.stream == "image" or row.facet == "alignment"
        assert (row.p_value_holm <= 0.05) == planted, row.statement
        assert ("is above" in row.statement) == planted
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
    again = compare(CellResults(changed, curve.outcomes, curve.margins), resamples=50)
    assert again["cell"].tolist() == comparisons["cell"].tolist()
    assert again["baseline_cell"].tolist() == comparisons["baseline_cell"].tolist()
    trained = curve.table.query("control == 'trained' and facet == 'quality'")
    assert best_cell(trained)["cv_accuracy"] == trained["cv_accuracy"].max()


def test_statements_follow_interval_and_correction(comparisons):
    row = comparisons.iloc[0].to_dict()
    case = {**row, "difference": 0.031, "ci_low": 0.002, "ci_high": 0.06, "p_value_holm": 0.2}
    assert "+3.1 points, 95% interval [+0.2, +6.0], but not after Holm's correction (p = 0.2)" in _statement(case)
    assert "is below" in _statement(
        {**case, "difference": -0.03, "ci_low": -0.05, "ci_high": -0.01, "p_value_holm": 0.01}
    )
    assert "not distinguished" in _statement({**case, "ci_low": -0.01})


def test_without_a_random_init_store_latents_remain(pairs):
    alone = measure_curve(FakeStore(pairs), pairs, shuffles=0, facets=["quality"], sites=Sites(sigmas=(0.6,)))
    assert set(compare(alone, resamples=50)["baseline"]) == {"latents"}
    bare = CellResults(alone.table.query("control == 'trained'"), alone.outcomes, alone.margins)
    with pytest.raises(UserError, match="nothing to compare"):
        compare(bare)


def test_incomparable_stores_are_refused(pairs):
    trained, random_init = FakeStore(pairs), FakeStore(pairs, random_init=True)
    with pytest.raises(UserError, match="holds trained weights"):
        measure_curve(trained, pairs, random_init=FakeStore(pairs))
    with pytest.raises(UserError, match="give it as the control"):
        measure_curve(random_init, pairs)
    foreign = FakeStore(pairs)
    foreign.attributes["prompts"] = "foreign"
    with pytest.raises(UserError, match="given as trained was extracted with foreign prompts"):
        measure_curve(foreign, pairs)
    random_init.attributes["prompts"] = "empty"
    with pytest.raises(UserError, match="given as control was extracted with empty prompts"):
        measure_curve(trained, pairs, random_init=random_init)
    del random_init.attributes["prompts"]
    random_init.attributes["resolution"] = 128
    with pytest.raises(UserError, match="resolution is 64 and 128"):
        measure_curve(trained, pairs, random_init=random_init)
    with pytest.raises(UserError, match="0 or more"):
        measure_curve(trained, pairs, shuffles=-1)
