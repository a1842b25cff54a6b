"""Frozen and adapted backbones as rewards: accuracies, and reward curves block by block."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probing.plots import style
from probing.plots.curves import describe_counts, facet_rows, facets_in
from probing.plots.grid import facet_grid
from probing.plots.text import shown_name
from probing.result_tables import DECIDED

CAPTION = (
    "Points: accuracy on test pairs, mean over seeds; bars: 95% over prompts; ticks below: single seeds, least to "
    "most. Dashed: annotators' ceiling."
)
CURVES_CAPTION = (
    "A probe on each block's image tokens, trained anew. Bands: 95% over prompts. Filled: differs from the frozen "
    "backbone's block, paired over the same pairs, p ≤ 0.05 after Holm's correction over the blocks."
)
_STYLES = {
    "frozen": style.Style(style.TRAINED, "o", "frozen"),
    "lora": style.Style("#009E73", "s", "low-rank adapter (LoRA)"),
    "full": style.Style("#D55E00", "D", "every weight trained"),
    "": style.Style("#CC79A7", "^", "baseline reward model"),
}


def plot_adaptation(table: pd.DataFrame, *, model: str, ax: Axes | None = None, legend: bool = True) -> Axes:
    """Draw the accuracy of each way of training a model, facet by facet, beside rewards that have no such way.

    Args:
        table: ``adaptation.csv``.
        model: Which model.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: The table has no such model.
    """
    rows = table.assign(how=table["how"].fillna(""))
    if model not in set(rows["model"]):
        raise ValueError(f"Got model {model!r}, expected one of {', '.join(rows['model'].unique())}.")
    rows = rows[(rows["model"] == model) | (rows["how"] == "")]
    ways = [how for how in _STYLES if how in set(rows["how"])]
    facets = facets_in(rows)
    with style.house_style():
        ax = style.new_axes(ax, (5.6, 1.4 + 0.8 * len(facets)))
        style.vertical_line(ax, 50, "chance", 0.45)
        for number, facet in enumerate(facets):
            of_facet = facet_rows(rows, facet)
            for place, how in enumerate(ways):
                y = -number + 0.18 * ((len(ways) - 1) / 2 - place)
                for row in of_facet[of_facet["how"] == how].to_dict("records"):
                    values = 100 * row["value"], 100 * row["ci_low"], 100 * row["ci_high"]
                    style.draw_interval(ax, y, values, _STYLES[how])
                    if row["seeds"] > 1:
                        ends = [100 * row["least"], 100 * row["most"]]
                        ax.plot(ends, [y - 0.07] * 2, "|-", color=_STYLES[how].colour, linewidth=0.7, markersize=4)
            ceiling = 100 * of_facet["ceiling"].iloc[0]
            ax.plot([ceiling] * 2, [-number - 0.4, -number + 0.4], color=style.CEILING, linestyle=style.DASHED)
        ax.set_yticks(range(0, -len(facets), -1), [shown_name(facet) for facet in facets])
        ax.set_ylim(-len(facets) + 0.45, 0.75)
        # Room for the word chance, on both sides of its line.
        ax.set_xlim(left=min(46, ax.get_xlim()[0]))
        ax.set_xlabel("pair accuracy (%)")
        ax.set_title(f"{shown_name(model)}\n{describe_counts(rows)}", fontsize=10)
        if legend:
            style.legend_below(ax, style.handles_of(_STYLES, ways), columns=2)
    return ax


def figure_adaptation(table: pd.DataFrame) -> Figure:
    """Draw every model, side by side.

    Args:
        table: ``adaptation.csv``.
    """
    ways = table["how"].fillna("")
    models = list(table.loc[ways != "", "model"].unique())
    with facet_grid(
        1,
        len(models),
        (max(4.4 * len(models), 5.6), 1.9 + 0.85 * table["facet"].nunique()),
        title="Frozen and adapted backbones as rewards",
        caption=CAPTION,
        handles=style.handles_of(_STYLES, set(ways)),
        legend_columns=2,
        outer_labels=True,
        sharex=True,
        sharey=True,
    ) as (figure, grid):
        for ax, model in zip(grid[0], models, strict=True):
            plot_adaptation(table, model=model, ax=ax, legend=False)
    return figure


def plot_adapted_curve(
    table: pd.DataFrame, *, model: str, facet: str, ax: Axes | None = None, legend: bool = True
) -> Axes:
    """Draw the reward curve of a model's frozen and adapted backbones for one facet.

    Args:
        table: ``adaptation_curves.csv``.
        model: Which model.
        facet: Which facet.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: The table has no such model or facet.
    """
    rows = facet_rows(table, facet)
    rows = rows[rows["model"] == model]
    if rows.empty:
        raise ValueError(f"Got model {model!r}, expected one of {', '.join(table['model'].unique())}.")
    with style.house_style():
        ax = style.new_axes(ax, (5.0, 3.8))
        for how in dict.fromkeys(rows["how"]):
            part, one = rows[rows["how"] == how].sort_values("block"), _STYLES[how]
            style.draw_band(ax, part["block"], part, one, hollow=False, alpha=0.13, zorder=2)
            ax.lines[-1].set_markerfacecolor("white" if how != "frozen" else one.colour)
            decided = part[part["verdict"].isin(DECIDED)]
            ax.plot(decided["block"], decided["value"], one.marker, color=one.colour, zorder=3)
        style.accuracy_axis(ax, rows["ceiling"].iloc[0])
        style.block_axis(ax)
        ax.set_title(f"{shown_name(model)}: {shown_name(facet)}\n{describe_counts(rows)}", fontsize=9.5)
        if legend:
            style.legend_below(ax, style.handles_of(_STYLES, set(rows["how"])), columns=2)
    return ax


def figure_adaptation_curves(table: pd.DataFrame) -> Figure:
    """Draw every facet (rows) of every model (columns).

    Args:
        table: ``adaptation_curves.csv``.
    """
    models, facets = list(table["model"].unique()), facets_in(table)
    with facet_grid(
        len(facets),
        len(models),
        (max(4.2 * len(models), 5.6), 2.7 * len(facets) + 1.5),
        title="Reward curves of frozen and adapted backbones",
        caption=CURVES_CAPTION,
        handles=style.handles_of(_STYLES, set(table["how"])),
        legend_columns=3,
        outer_labels=True,
        sharex="col",
        sharey="row",
    ) as (figure, grid):
        for axes, facet in zip(grid, facets, strict=True):
            for ax, model in zip(axes, models, strict=True):
                plot_adapted_curve(table, model=model, facet=facet, ax=ax, legend=False)
    return figure
