"""The table of frozen and adapted rewards, on planted scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from probing.analysis.engine import measure_cells
from probing.errors import UserError
from probing.plots import figure_adaptation, figure_adaptation_curves, plot_adaptation, plot_adapted_curve
from probing.testbed.adaptation import AdaptationOptions, run
from probing.testbed.adaptation_tables import FROZEN, RIVAL, curves, tables
from tests.fakes.planted_store import PlantedStore, planted_pairs


@pytest.fixture(scope="module")
def planted():
    """200 prompts; the frozen reward is noise, the adapted one orders 9 of 10 pairs, the rival 7 of 10."""
    rng = np.random.default_rng(0)
    test = pd.DataFrame(
        {
            "prompt_id": [f"p{n}" for n in range(200)],
            "first": [f"a{n}" for n in range(200)],
            "second": [f"b{n}" for n in range(200)],
            "choice": 1.0,
            "facet": np.where(np.arange(200) < 100, "alignment", "quality"),
            "probability": 0.9,
        }
    )
    items = [*test["first"], *test["second"]]

    def rewards(share):
        right = rng.random(200) < share
        return pd.Series([*np.where(right, 1.0, -1.0), *np.zeros(200)], index=items)

    scores = {("m", FROZEN, seed): rewards(0.5) for seed in range(3)}
    scores |= {("m", "lora", seed): rewards(0.9) for seed in range(3)}
    return tables(scores, rewards(0.7), test)


def test_accuracies_are_means_over_seeds_with_intervals(planted):
    table = planted[0].set_index(["facet", "model", "how"])
    lora = table.loc[("all", "m", "lora")]
    assert 0.85 < lora["value"] < 0.95 and lora["ci_low"] < lora["value"] < lora["ci_high"]
    assert lora["least"] <= lora["value"] <= lora["most"] and lora["seeds"] == 3 and lora["n_pairs"] == 200
    assert 0.43 < table.loc[("all", "m", FROZEN), "value"] < 0.57
    assert table.loc[("all", RIVAL, ""), "ceiling"] == pytest.approx(0.9)


def test_a_planted_gain_is_found_and_corrected(planted):
    table = planted[1].set_index(["facet", "how", "against"])
    gain = table.loc[("all", "lora", f"m {FROZEN}")]
    assert gain["ci_low"] > 0.2 and gain["p_value_holm"] < 1e-6
    assert table.loc[("all", FROZEN, RIVAL), "difference"] < 0
    assert (table["p_value_holm"] >= table["p_value"]).all()


@pytest.fixture(scope="module")
def by_block():
    """The adapted backbone holds more of the reward in its last two blocks, and the same before."""
    pairs = planted_pairs(test=400)

    def cells(late, seed):
        def plant(stream, sigma, block):
            return (late, late) if block > 1 else (0.4, 0.4)

        return measure_cells(PlantedStore(pairs, plant, num_blocks=4, seed=seed), pairs)

    return curves({("m", FROZEN): cells(0.1, 0), ("m", "lora"): cells(1.0, 1)})


def test_the_curve_says_where_the_backbone_moved(by_block):
    adapted = by_block[by_block["how"] == "lora"].set_index("block")
    assert list(adapted["verdict"]) == ["not distinguished"] * 2 + ["above"] * 2
    assert set(adapted["family"]) == {"model m, how lora, facet all: 4 tests"}
    frozen = by_block[by_block["how"] == FROZEN].set_index("block")
    assert frozen["difference"].isna().all() and frozen["verdict"].isna().all()
    np.testing.assert_allclose(adapted["difference"], adapted["value"] - frozen["value"])
    assert (adapted["difference_low"] <= adapted["difference"]).all()


def test_figures_show_the_tables(planted, by_block):
    accuracies = planted[0]
    ax = plot_adaptation(accuracies, model="m")
    shown = accuracies[accuracies["facet"] == "all"]
    drawn = [float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() in ("o", "s", "^")]
    assert set(np.round(100 * shown["value"], 6)) <= set(np.round(drawn, 6)) and len(drawn) == len(accuracies)
    ax = plot_adapted_curve(by_block, model="m", facet="all")
    filled = [line for line in ax.lines if line.get_marker() == "s" and to_hex(line.get_markerfacecolor()) != "#ffffff"]
    assert sorted(int(x) for line in filled for x in line.get_xdata()) == [2, 3]
    for figure in (figure_adaptation(accuracies), figure_adaptation_curves(by_block)):
        assert len(figure.legends) == 1
    for draw, table in ((plot_adaptation, accuracies), (plot_adapted_curve, by_block)):
        with pytest.raises(ValueError, match="expected one of"):
            draw(table, model="none", **({"facet": "all"} if draw is plot_adapted_curve else {}))


def test_an_unknown_way_is_refused():
    with pytest.raises(UserError, match="Unknown way 'prefix'; choose of lora, full"):
        run(AdaptationOptions(how=("prefix",)))
