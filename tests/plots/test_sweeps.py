"""Figures of the experiments beyond the reward curve show the numbers of their tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from probing.analysis.published import PAPER_CURVE, add_published_curve, add_published_scaling, published
from probing.analysis.reward_curve import headline_rows, mark_curve
from probing.errors import UserError
from probing.plots import (
    figure_combinations,
    figure_controls,
    figure_depth_curves,
    figure_factorial,
    figure_factorial_effects,
    figure_noise,
    figure_noise_draws,
    figure_scaling,
    plot_controls,
    plot_effects,
    plot_factorial,
    plot_gain_of_many,
    plot_gains,
    plot_noise,
    plot_pairs_of_blocks,
    plot_published,
    plot_redraws,
    plot_reward_curve,
    plot_scaling,
)
from tests.plots.figure_tables import curve_table
from tests.plots.sweep_tables import sweep_tables


@pytest.fixture(scope="module")
def tables():
    return sweep_tables()


def numbers_in(ax):
    return [text.get_text() for text in ax.texts if text.get_text().split("\n")[0].isdigit()]


def test_heatmap_of_pairs_shows_accuracies_and_the_chosen(tables):
    table = tables["combinations"]
    ax = plot_pairs_of_blocks(table, facet="all")
    heads = table[table["kind"].isin(["single", "pair"]) & (table["head"] == "full")]
    assert sorted(numbers_in(ax)) == sorted(f"{100 * value:.0f}" for value in heads["value"])
    assert len(ax.patches) == 2 * 2
    assert {text.get_text() for text in ax.texts} >= {"B1", "B2", "B3"}
    values = ax.images[0].get_array()
    assert np.ma.count(values) == 4 + 6
    assert "60 pairs of 60 prompts" in ax.get_title()


def test_gains_are_in_points_with_intervals(tables):
    table = tables["combinations"]
    ax = plot_gains(table, facet="all")
    labels = [label.get_text() for label in ax.get_yticklabels()]
    pair = table[(table["kind"] == "pair") & (table["head"] == "full") & table["chosen"].astype(bool)].iloc[0]
    assert labels[0] == f"two blocks: {pair['blocks']} (8)"
    bars = [line for line in ax.lines if len(line.get_xdata()) == 2 and len(set(line.get_ydata())) == 1]
    np.testing.assert_allclose(bars[0].get_xdata(), [100 * pair["gain_low"], 100 * pair["gain_high"]])
    assert any(list(line.get_xdata()) == [0, 0] for line in ax.lines)
    assert any("widened" in label for label in labels) and labels[-1].startswith("mix of all blocks")
    with pytest.raises(ValueError, match="expected one of all"):
        plot_gains(table, facet="charm")


def test_noise_heatmap_frames_one_level_a_block(tables):
    ax = plot_noise(tables["noise"], facet="all")
    assert len(ax.patches) == 2 * 4
    cells = tables["noise"].query("kind == 'cell'")
    framed = [text.get_text() for text in ax.texts if "(" in text.get_text()]
    assert len(framed) == 4 and len(numbers_in(ax)) == len(cells)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0.6", "0.1"]
    with pytest.raises(ValueError, match="the table has none"):
        plot_noise(tables["noise"], facet="all", stream="text")


@pytest.mark.parametrize("kind", ["sigmas", "draws", "pairing"])
def test_gains_of_levels_and_draws_are_those_of_the_table(tables, kind):
    ax = plot_gain_of_many(tables["noise"], facet="all", kind=kind)
    rows = tables["noise"][tables["noise"]["kind"] == kind]
    rows = rows[rows["method"].isna() | (rows["method"] == "rewards")]
    drawn = np.concatenate([line.get_ydata() for line in ax.lines if len(line.get_xdata()) == 4])
    assert set(np.round(100 * rows["gain"].astype(float), 6)) <= set(np.round(drawn.astype(float), 6))
    assert any(list(line.get_ydata()) == [0, 0] for line in ax.lines)


@pytest.mark.parametrize("metric", ["reward_ratio", "margin_ratio", "flip_rate"])
def test_redraws_have_a_curve_with_bars_per_level(tables, metric):
    ax = plot_redraws(tables["noise"], facet="all", metric=metric)
    assert len([line for line in ax.lines if len(line.get_xdata()) == 4]) == 2
    assert sum(len(bars.get_segments()) for bars in ax.collections if isinstance(bars, LineCollection)) == 8


def test_scaling_shows_points_lines_and_the_slope(tables):
    table = tables["scaling"]
    ax = plot_scaling(table, facet="all")
    fit = table[
        (table["kind"] == "fit")
        & (table["head"] == "best")
        & (table["series"] == "trained")
        & (table["against"] == "parameters")
    ].iloc[0]
    assert f"{100 * fit['value']:+.1f} points a tenfold" in ax.get_title() and "narrowed: " in ax.get_title()
    assert ax.get_xscale() == "log" and ax.get_xlabel() == "parameters"
    hollow = [line for line in ax.lines if line.get_markerfacecolor() == "white" and line.get_marker() == "o"]
    assert len(hollow) == 1
    assert {"chance"} <= {text.get_text() for text in ax.texts}
    with pytest.raises(ValueError, match="no trained model's best block"):
        plot_scaling(table, facet="charm")
    # Values of another data set stand beside no measurement.
    published_too = add_published_scaling(table.assign(data="hpdv3"))
    assert add_published_scaling(table) is table
    assert len(figure_scaling(published_too).axes) == len(figure_scaling(table).axes) + 1


def test_published_values_have_a_grey_panel(tables):
    ax = plot_published(add_published_scaling(tables["scaling"].assign(data="hpdv3")))
    stated = [one for one in published(benchmark="hpdv3") if one.parameters is not None]
    marks = [line for line in ax.lines if len(line.get_xdata()) == 1]
    assert sorted(float(line.get_ydata()[0]) for line in marks) == sorted(one.value for one in stated)
    assert {line.get_color() for line in marks} == {"#8A8A8A"}


def test_controls_are_rows_with_their_differences(tables):
    table = tables["controls"]
    ax = plot_controls(table, facet="all")
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["trained, best cell", "random-initialised", "pooled VAE latents", "shuffled choices"]
    differences = [text.get_text() for text in ax.texts if "[" in text.get_text()]
    assert differences[0].startswith(f"{100 * table['difference'].iloc[1]:+.1f} [")
    assert "chance" in {text.get_text() for text in ax.texts}


def test_factorial_shows_every_cell_and_effect(tables):
    table = tables["factorial"]
    ax = plot_factorial(table, facet="all", stream="image")
    cells = table[table["kind"] == "cell"]
    curves = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_marker() in "os"]
    drawn = np.concatenate([line.get_ydata() for line in curves])
    assert sorted(drawn) == sorted(cells["value"]) and len(curves) == 2 * 2
    assert [label.get_text() for label in ax.get_xticklabels()] == ["planted", "large"]
    ax = plot_effects(table, facet="all")
    effects = table[table["kind"].isin(["main", "interaction"])]
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert len(labels) == len(effects) and labels[0] == "mean_difference − logistic"
    assert "(σ = 0.6 − σ = 0.1) at large − at planted" in labels
    bars = [line for line in ax.lines if len(line.get_xdata()) == 2 and len(set(line.get_ydata())) == 1]
    lows = sorted(float(line.get_xdata()[0]) for line in bars)
    np.testing.assert_allclose(lows, sorted(100 * effects["ci_low"].astype(float)))
    with pytest.raises(ValueError, match="expected one of image"):
        plot_factorial(table, facet="all", stream="text")


def test_every_figure_has_one_caption_and_names_the_model(tables):
    drawn = {
        "combinations": figure_combinations,
        "noise": figure_noise,
        "scaling": figure_scaling,
        "controls": figure_controls,
        "factorial": figure_factorial,
    }
    further = [("noise", figure_noise_draws), ("scaling", figure_depth_curves), ("factorial", figure_factorial_effects)]
    for name, draw in [*drawn.items(), *further]:
        figure = draw(tables[name])
        assert isinstance(figure, Figure) and len(figure.legends) == 1
        assert figure.legends[0].get_title().get_text()
    with pytest.raises(ValueError, match="one noise level and one draw"):
        figure_noise_draws(tables["noise"].query("kind == 'cell'"))


def test_the_headline_keeps_the_rows_of_one_facet():
    curve = curve_table()
    assert set(headline_rows(curve)["facet"]) == {"alignment"}
    assert set(headline_rows(pd.concat([curve, curve.assign(facet="all")]))["facet"]) == {"all"}
    assert list(headline_rows(curve.assign(stage="B1", may_be_best=1.0))) == list(curve)


def test_curve_marks_stages_best_blocks_and_published_values():
    curve = curve_table().assign(probe="logistic", model="sd35-large")
    stages = pd.DataFrame({"stage": ["B1", "B2"], "first_block": [0, 2], "last_block": [1, 3]})
    cells = curve[curve["control"] == "trained"]
    measures = cells.assign(metric="may_be_best", value=(cells["block"] >= 2).astype(float))
    marked = mark_curve(add_published_curve(curve), measures, stages)
    ax = plot_reward_curve(marked, facet="quality")
    assert {text.get_text() for text in ax.texts} >= {"B1", "B2"}
    assert any(list(line.get_xdata()) == [1.5, 1.5] for line in ax.lines)
    ticks = [
        line for line in ax.lines if line.get_transform() == ax.get_xaxis_transform() and line.get_marker() in "os"
    ]
    assert [list(line.get_xdata()) for line in ticks] == [[2.0, 3.0], [2.0, 3.0]]
    crosses = [line for line in ax.lines if line.get_marker() == "x" and line.get_color() == "#8A8A8A"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in crosses] == [
        (one.blocks[0], one.value) for one in PAPER_CURVE
    ]
    text = plot_reward_curve(marked, facet="quality", stream="text")
    assert not [line for line in text.lines if line.get_color() == "#8A8A8A"]


def test_marks_of_another_model_and_bad_stages():
    curve = curve_table().assign(probe="logistic")
    other = pd.DataFrame({"model": ["other"], "stage": ["B1"], "first_block": [0], "last_block": [3]})
    assert mark_curve(curve, stages=other)["stage"].isna().all()
    assert "may_be_best" not in mark_curve(curve)
    short = pd.DataFrame({"stage": ["B1"], "first_block": [0], "last_block": [1]})
    with pytest.raises(UserError, match="The stages do not fit the curve of fake, image: Blocks 2, 3 are in no stage"):
        mark_curve(curve, stages=short)
