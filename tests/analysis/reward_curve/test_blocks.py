"""Blocks compared with the selected one: each number of the table by hand, on a planted signal."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from probing.analysis.engine import Sites
from probing.analysis.reward_curve import compare_blocks, measure_curve
from probing.analysis.reward_curve.blocks import COLUMNS
from tests.fakes.fake_store import FIRST_WITH_SIGNAL, FakeStore, make_pairs


@pytest.fixture(scope="module")
def results():
    pairs = make_pairs()
    return measure_curve(FakeStore(pairs), pairs, shuffles=2, sites=Sites(streams=("image",), sigmas=(0.6,)))


@pytest.fixture(scope="module")
def table(results):
    return compare_blocks(results, delta=0.02)


def test_the_selected_block_is_compared_with_every_other(results, table):
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 3 * 5 and set(table["control"]) == {"trained"}
    for facet, rows in table.groupby("facet"):
        curve = results.table[(results.table["facet"] == facet) & (results.table["control"] == "trained")]
        curve = curve[curve["block"].notna()]
        chosen = curve.loc[curve["cv_accuracy"].idxmax()]
        assert set(rows["chosen_block"]) == {chosen["block"]}
        assert chosen["block"] >= FIRST_WITH_SIGNAL["image"]
        assert sorted([*rows["block"], chosen["block"]]) == sorted(curve["block"])
        (family,) = set(rows["family"])
        assert f"facet {facet}, stream image" in family and family.endswith(": 5 tests")


def test_only_blocks_without_the_signal_are_below(table):
    without = table["block"] < FIRST_WITH_SIGNAL["image"]
    assert (table.loc[without, "verdict"] == "above").all() and (table.loc[without, "ci_low"] > 0).all()
    assert not table.loc[without, "equivalent"].any()
    assert (table.loc[~without, "verdict"] == "not distinguished").all()


def test_numbers_match_the_two_cells(results, table):
    outcomes = results.outcomes
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    for row in table.itertuples():
        pairs = outcomes[outcomes["facet"] == row.facet]
        one, two = pairs[row.chosen_cell].to_numpy(), pairs[row.cell].to_numpy()
        assert row.difference == pytest.approx(np.mean(one - two))
        counts = [[np.sum((one == i) & (two == j)) for j in (1, 0)] for i in (1, 0)]
        if row.facet != "all":  # one pair a prompt
            assert row.p_value == pytest.approx(mcnemar(counts, exact=True).pvalue, rel=0.2)
            # Then a prompt's variance is that of the pairs' differences, but for the added prompts and the step.
            simple = z**2 * np.var(one - two, ddof=1) / 0.02**2
            assert (
                simple - 1 < row.prompts_needed * 1.05 < 1.1 * simple + 2 / 0.02
                and row.pairs_needed == row.prompts_needed
            )


def test_a_wide_margin_makes_blocks_equivalent(results):
    wide = compare_blocks(results, delta=0.2)
    assert wide.loc[wide["block"] >= FIRST_WITH_SIGNAL["image"], "equivalent"].all()
    with pytest.raises(ValueError, match="expected a number above 0"):
        compare_blocks(results, delta=0.0)


def test_curves_of_one_block_give_an_empty_table():
    pairs = make_pairs()
    one = measure_curve(
        FakeStore(pairs), pairs, shuffles=0, sites=Sites(streams=("image",), sigmas=(0.6,), blocks=(4,))
    )
    assert tuple(compare_blocks(one).columns) == COLUMNS and len(compare_blocks(one)) == 0
