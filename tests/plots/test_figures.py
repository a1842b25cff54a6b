"""Figures show the numbers of their table, and no global setting changes."""

from __future__ import annotations

import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from probing.plots import figure_comparisons, figure_reward_curves, plot_comparisons, plot_reward_curve
from tests.plots.figure_tables import NUM_BLOCKS, comparison_table, curve_table


@pytest.fixture(scope="module")
def curve():
    return curve_table()


def lines_of(ax, style=None):
    return [line for line in ax.lines if style is None or line.get_linestyle() == style]


def test_trained_curve_shows_its_numbers(curve):
    ax = plot_reward_curve(curve, facet="quality")
    solid = [line for line in lines_of(ax, "-") if len(line.get_xdata()) == NUM_BLOCKS]
    assert len(solid) == 2
    for line, sigma in zip(solid, (0.005, 0.6), strict=True):
        np.testing.assert_allclose(line.get_xdata(), range(NUM_BLOCKS))
        np.testing.assert_allclose(line.get_ydata(), [0.5 + 0.08 * b + 0.1 * sigma for b in range(NUM_BLOCKS)])
    assert solid[0].get_marker() != solid[1].get_marker() and solid[0].get_color() != solid[1].get_color()


def test_chance_ceiling_counts_and_controls_are_drawn(curve):
    ax = plot_reward_curve(curve, facet="quality", stream="text")
    assert {text.get_text() for text in ax.texts} == {"chance", "annotators'\nceiling"}
    assert "1,234 pairs of 617 prompts" in ax.get_title() and "text tokens" in ax.get_title()
    levels = [line.get_ydata()[0] for line in ax.lines if list(line.get_xdata()) == [0, 1]]
    assert sorted(levels) == [0.5, 0.55, 0.9]
    assert len([line for line in lines_of(ax, "--") if len(line.get_xdata()) == NUM_BLOCKS - 1]) == 2
    # The grey band: 95% of single shuffles.
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((0.46, 0.57))
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == [
        "trained, σ = 0.005",
        "trained, σ = 0.6",
        "random-initialised (mean of 3)",
        "pooled VAE latents",
        "20 shuffles of the choices",
    ]
    assert all(tick == int(tick) for tick in ax.get_xticks())


def test_unknown_ceiling_and_missing_controls_are_left_out(curve):
    table = curve[curve["control"] == "trained"].assign(ceiling=np.nan)
    ax = plot_reward_curve(table, facet="quality")
    assert {text.get_text() for text in ax.texts} == {"chance"}
    assert len(ax.get_legend().get_texts()) == 2


def test_grid_has_facets_by_streams_and_one_legend(curve):
    figure = figure_reward_curves(curve)
    assert isinstance(figure, Figure) and len(figure.axes) == 4 and len(figure.legends) == 1
    assert "Bands: 95% over prompts" in figure.legends[0].get_title().get_text().replace("\n", " ")
    titles = [ax.get_title().split("\n")[0] for ax in figure.axes]
    assert titles == [
        "alignment, image tokens (mean)",
        "alignment, text tokens (mean clip)",
        "quality, image tokens (mean)",
        "quality, text tokens (mean clip)",
    ]


def test_csv_gives_the_same_figure(curve, tmp_path):
    curve.to_csv(tmp_path / "curve.csv", index=False)
    drawn = [np.asarray(_pixels(figure_reward_curves(t))) for t in (curve, pd.read_csv(tmp_path / "curve.csv"))]
    np.testing.assert_array_equal(*drawn)


def _pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.buffer_rgba()


def test_stages_are_those_of_the_lowest_noise_level(curve):
    cut = {sigma: block for block, sigma in enumerate(sorted(curve["sigma"].dropna().unique()), start=1)}
    staged = curve.assign(
        stage=[
            None if pd.isna(row["block"]) else ("B1" if row["block"] < cut[row["sigma"]] else "B2")
            for row in curve.to_dict("records")
        ]
    )
    ax = plot_reward_curve(staged, facet="quality")
    named = {text.get_text(): text.get_position()[0] for text in ax.texts}
    assert named["B1"] < 0.5 < named["B2"]
    borders = [
        line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":" and line.get_color() == "#555555"
    ]
    assert borders == [0.5]


def test_comparisons_show_differences_in_points():
    ax = plot_comparisons(comparison_table(), facet="quality")
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["image, σ = 0.005", "text, σ = 0.6", "best σ and stream"]
    bars = [line for line in ax.lines if len(line.get_xdata()) == 2 and list(line.get_xdata()) != [0, 0]]
    np.testing.assert_allclose(bars[0].get_xdata(), [7, 13])
    points = [line for line in ax.lines if line.get_marker() in "os"]
    np.testing.assert_allclose([p.get_xdata()[0] for p in points], [10, 1] * 3)
    assert [p.get_markerfacecolor() == "white" for p in points] == [False, True] * 3
    assert any(list(line.get_xdata()) == [0, 0] for line in ax.lines)


def test_comparisons_of_all_facets_name_them():
    labels = [label.get_text() for label in plot_comparisons(comparison_table()).get_yticklabels()]
    assert len(labels) == 6 and labels[0].startswith("alignment: ")
    figure = figure_comparisons(comparison_table())
    assert len(figure.axes) == 2
    assert "Holm" in figure.legends[0].get_title().get_text()


def test_missing_facet_is_refused(curve):
    with pytest.raises(ValueError, match="expected trained cells of one of: alignment in image"):
        plot_reward_curve(curve, facet="charm")
    with pytest.raises(ValueError, match="expected one of alignment, quality"):
        plot_comparisons(comparison_table(), facet="charm")


def test_given_axes_are_used_and_global_style_unchanged(curve):
    before = dict(mpl.rcParams)
    ax = Figure().subplots()
    assert plot_reward_curve(curve, facet="quality", ax=ax) is ax
    assert plot_comparisons(comparison_table(), ax=Figure().subplots()) is not ax
    assert dict(mpl.rcParams) == before


def test_plots_import_no_torch_and_no_pyplot():
    code = "import sys, probing.plots; assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_seam_between_two_kinds_of_block_is_drawn(curve):
    lists = np.where(curve["block"].astype(float) < 2, "transformer_blocks", "single_transformer_blocks")
    ax = plot_reward_curve(curve.assign(block_list=lists), facet="quality")
    (seam,) = [line for line in ax.lines if list(line.get_xdata()) == [1.5, 1.5]]
    assert seam.get_linestyle() == "--"
    assert "single transformer blocks" in {text.get_text() for text in ax.texts}
    for named, caption in ((lists, True), ("transformer_blocks", False)):
        (legend,) = figure_reward_curves(curve.assign(block_list=named)).legends
        written = " ".join(legend.get_title().get_text().split())
        assert ("from there on blocks of another kind" in written) == caption
