"""What can be read in each block beside what steering and erasing it does, and the response to doses."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probing.plots import style
from probing.plots.curves import facet_rows, facets_in
from probing.plots.grid import facet_grid
from probing.plots.text import shown_name
from probing.result_tables import DECIDED

CAPTION = (
    "Above: accuracy of a probe on the block's image tokens. Below: half the difference between pictures steered along "
    "and against a direction in every step, same captions and noise. Filled: differs from zero, p ≤ 0.05 after Holm's "
    "correction over the blocks. Bands: 95% over prompts (above) or captions (below); controls have the trained "
    "direction's length."
)
DOSE_CAPTION = (
    "Mean change of the judged score along (to the right) and against a direction, at the block that reads the facet "
    "best. Bars: 95% over captions. Grey: random directions of the same length."
)
METRICS = {"alignment": "attributes that are right", "fidelity": "judged fidelity", "whole": "whole captions obeyed"}
_STYLES = {
    ("logistic", "trained"): style.Style(style.TRAINED, "o", "direction of the probe"),
    ("mean_difference", "trained"): style.Style("#D55E00", "s", "difference of chosen and rejected"),
    ("logistic", "shuffled"): style.Style("#9A9A9A", "v", "shuffled choices", style.DASHED),
    ("logistic", "random"): style.Style("#5C5C5C", "^", "random direction", style.DASHED),
    ("logistic", "random-init"): style.Style("#C2A060", "D", "random-initialised model's", style.DASHED),
}


def plot_reading(table: pd.DataFrame, *, facet: str, ax: Axes | None = None) -> Axes:
    """Draw how well each block can be read.

    Args:
        table: ``causal_curve.csv``.
        facet: Which facet.
        ax: Axes to draw on; new ones if None.

    Raises:
        ValueError: The table has no such facet.
    """
    rows = facet_rows(table, facet).drop_duplicates("block").sort_values("block")
    with style.house_style():
        ax = style.new_axes(ax, (5.0, 3.0))
        columns = {"reading": "value", "reading_low": "ci_low", "reading_high": "ci_high"}
        band = rows.drop(columns=["ci_low", "ci_high"]).rename(columns=columns)
        style.draw_band(ax, rows["block"], band, _STYLES["logistic", "trained"], hollow=False, alpha=0.15)
        style.accuracy_axis(ax, rows["ceiling"].iloc[0])
        style.block_axis(ax)
        ax.set_title(f"{shown_name(facet)}, read at σ = {rows['sigma'].iloc[0]:g}", fontsize=10)
    return ax


def plot_use(table: pd.DataFrame, *, facet: str, ax: Axes | None = None, legend: bool = True) -> Axes:
    """Draw what steering each block does to the score that the facet is about.

    Args:
        table: ``causal_curve.csv``.
        facet: Which facet.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: The table has no such facet.
    """
    rows = facet_rows(table, facet)
    rows = rows[rows["target"] & (rows["dose"] == rows["dose"].max())]
    with style.house_style():
        ax = style.new_axes(ax, (5.0, 3.4))
        ax.axhline(0, color=style.REFERENCE, linewidth=1.0, zorder=1)
        for (probe, control), one in _STYLES.items():
            part = rows[(rows["probe"] == probe) & (rows["control"] == control)].sort_values("block")
            if part.empty:
                continue
            band = part.assign(value=100 * part["effect"], ci_low=100 * part["ci_low"], ci_high=100 * part["ci_high"])
            trained = control == "trained"
            style.draw_band(ax, part["block"], band, one, hollow=True, alpha=0.15 if trained else 0.08, zorder=2)
            ax.lines[-1].set_linestyle(one.line)
            decided = band[band["verdict"].isin(DECIDED)]
            ax.plot(decided["block"], decided["value"], one.marker, color=one.colour, zorder=3)
        style.block_axis(ax)
        dose, metric = rows["dose"].iloc[0], rows["metric"].iloc[0]
        ax.set_ylabel(f"{METRICS.get(metric, metric)},\nchange by {dose:g} SD (points)")
        ax.set_title(f"{rows['n_prompts'].iloc[0]} captions", fontsize=9.5)
        if legend:
            style.legend_below(ax, style.handles_of(_STYLES, _present(rows)), columns=2)
    return ax


def figure_causal_curve(table: pd.DataFrame) -> Figure:
    """Draw reading (above) and use (below) of every facet (columns).

    Args:
        table: ``causal_curve.csv``.
    """
    facets = facets_in(table)
    with facet_grid(
        2,
        len(facets),
        (max(4.4 * len(facets), 5.6), 7.2),
        title=f"Read and used, block by block: {shown_name(table['model'].iloc[0])}",
        caption=CAPTION,
        handles=style.handles_of(_STYLES, _present(table)),
        legend_columns=3,
        sharex="col",
    ) as (figure, grid):
        for column, facet in enumerate(facets):
            plot_reading(table, facet=facet, ax=grid[0][column])
            grid[0][column].set_xlabel("")
            plot_use(table, facet=facet, ax=grid[1][column], legend=False)
    return figure


def plot_dose_response(table: pd.DataFrame, *, facet: str, metric: str, ax: Axes | None = None) -> Axes:
    """Draw the change of a score against the dose, along and against the directions.

    Args:
        table: ``dose_response.csv``.
        facet: Facet of the directions.
        metric: Judged score.
        ax: Axes to draw on; new ones if None.

    Raises:
        ValueError: The table has no such facet or metric.
    """
    rows = facet_rows(table, facet)
    rows = rows[rows["metric"] == metric]
    if rows.empty:
        raise ValueError(f"Got metric {metric!r}, expected one of {', '.join(table['metric'].unique())}.")
    with style.house_style():
        ax = style.new_axes(ax, (4.6, 3.2))
        ax.axhline(0, color=style.REFERENCE, linewidth=1.0, zorder=1)
        for key, one in _STYLES.items():
            part = rows[(rows["probe"] == key[0]) & (rows["control"] == key[1])].sort_values("dose")
            if part.empty:
                continue
            values, low, high = (100 * part[name] for name in ("change", "change_low", "change_high"))
            ax.plot(part["dose"], values, one.marker, color=one.colour, linestyle=one.line, markersize=4)
            ax.vlines(part["dose"], low, high, color=one.colour, linewidth=1.2, alpha=0.7)
        ax.set_xlabel("dose (SD of the reading over items)")
        ax.set_ylabel(f"{METRICS.get(metric, metric)},\nchange (points)")
        ax.set_title(f"direction of {shown_name(facet)}, block {int(rows['block'].iloc[0])}", fontsize=10)
        ax.set_xticks(sorted(rows["dose"].unique()))
    return ax


def figure_dose_response(table: pd.DataFrame) -> Figure:
    """Draw alignment and fidelity (rows) against the dose along each facet's direction (columns).

    Args:
        table: ``dose_response.csv``.
    """
    facets = facets_in(table)
    metrics = [metric for metric in ("alignment", "fidelity") if metric in set(table["metric"])]
    with facet_grid(
        len(metrics),
        len(facets),
        (max(4.2 * len(facets), 5.6), 3.0 * len(metrics) + 1.4),
        title=f"Response to doses: {shown_name(table['model'].iloc[0])}",
        caption=DOSE_CAPTION,
        handles=style.handles_of(_STYLES, _present(table)),
        legend_columns=3,
        outer_labels=True,
        sharey="row",
        sharex=True,
    ) as (figure, grid):
        for axes, metric in zip(grid, metrics, strict=True):
            for ax, facet in zip(axes, facets, strict=True):
                plot_dose_response(table, facet=facet, metric=metric, ax=ax)
    return figure


def _present(table: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(table["probe"], table["control"], strict=True))
