"""Forest plots: the best trained cell minus the best of each control."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probing.plots import style
from probing.plots.curves import describe_counts, facet_rows, facets_in
from probing.plots.grid import facet_grid
from probing.plots.text import shown_name
from probing.result_tables import DECIDED

CAPTION = (
    "Accuracy of the trained backbone's best block minus that of the control's best, both chosen by cross-validation "
    "on training pairs. Bars: 95% paired over prompts. Filled: p ≤ 0.05 after Holm's correction."
)
_REFERENCES = " Nothing is chosen for another reward."
_STYLES = {
    "random-init": style.Style(style.RANDOM_INIT, "o", "minus random-initialised"),
    "latents": style.Style(style.LATENTS, "s", "minus pooled latents"),
    "reference": style.Style("#CC79A7", "D", "minus another reward"),
}


def plot_comparisons(
    table: pd.DataFrame, *, facet: str | None = None, ax: Axes | None = None, legend: bool = True
) -> Axes:
    """Draw differences with their intervals and a line at zero, a row per stream and noise level, and per reference.

    Args:
        table: Result of :func:`probing.analysis.compare`, or its CSV.
        facet: Which facet; all of them, named in the rows, if None.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: The table has no such facet.
    """
    rows = table if facet is None else facet_rows(table, facet)
    labels = [_label(row, with_facet=facet is None) for row in rows.to_dict("records")]
    heights = {label: -number for number, label in enumerate(dict.fromkeys(labels))}
    # Controls share a row; another reward has a row to itself.
    controls = [name for name in _STYLES if name in set(rows["baseline"]) and name != "reference"]
    offsets = {name: 0.26 * ((len(controls) - 1) / 2 - number) for number, name in enumerate(controls)}
    with style.house_style():
        ax = style.new_axes(ax, (6.4, 1.6 + 0.42 * len(heights)))
        style.vertical_line(ax, 0)
        for row, label in zip(rows.to_dict("records"), labels, strict=True):
            y = heights[label] + offsets.get(row["baseline"], 0.0)
            values = 100 * row["difference"], 100 * row["ci_low"], 100 * row["ci_high"]
            style.draw_interval(ax, y, values, _STYLES[row["baseline"]], filled=row["verdict"] in DECIDED)
        ax.set_yticks(list(heights.values()), list(heights))
        ax.set_ylim(min(heights.values()) - 0.6, 0.6)
        ax.set_xlabel("difference (percentage points)")
        ax.set_title(("" if facet is None else f"{shown_name(facet)}\n") + describe_counts(rows), fontsize=10)
        if legend:
            style.legend_below(ax, style.handles_of(_STYLES, set(rows["baseline"])), columns=2)
    return ax


def figure_comparisons(table: pd.DataFrame) -> Figure:
    """Draw every facet, two in a row, with one legend and a caption.

    Args:
        table: Result of :func:`probing.analysis.compare`, or its CSV.
    """
    facets = facets_in(table)
    labels = table.apply(lambda row: _label(row, with_facet=False), axis=1)
    lines = int(labels.groupby(table["facet"]).nunique().max())
    across = min(len(facets), 2)
    down = -(-len(facets) // across)
    handles = style.handles_of(_STYLES, set(table["baseline"]))
    with facet_grid(
        down,
        across,
        (max(3.9 * across + 1.0, 6.0), (0.36 * lines + 0.9) * down + 1.3),
        title="Is the trained backbone better than its controls?",
        caption=CAPTION + (_REFERENCES if (table["baseline"] == "reference").any() else ""),
        handles=handles,
        legend_columns=len(handles),
        sharex=True,
    ) as (figure, grid):
        for number, facet in enumerate(facets):
            ax = plot_comparisons(table, facet=facet, ax=grid.flat[number], legend=False)
            if number % across and _rows_of(ax) == _rows_of(grid.flat[number - 1]):
                ax.set_yticklabels([])
            if number < len(facets) - across:
                ax.set_xlabel("")
    return figure


def _rows_of(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def _label(row: dict[Any, Any] | pd.Series, *, with_facet: bool) -> str:
    label = "best σ and stream" if row["scope"] == "overall" else f"{row['stream']}, σ = {row['sigma']:g}"
    if row["baseline"] == "reference":
        label = f"minus {shown_name(row['baseline_chosen'])}"
    return f"{shown_name(row['facet'])}: {label}" if with_facet else label
