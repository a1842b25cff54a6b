"""The factorial design: accuracy of every cell against model size, and the effects of head, stream, noise and model."""

from __future__ import annotations

from itertools import cycle
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probing.plots import style
from probing.plots.curves import NothingToDraw, describe_counts, facet_rows, facets_in
from probing.plots.grid import facet_grid
from probing.plots.text import shown_name
from probing.result_tables import DECIDED

CAPTION = (
    "Every head reads the same relative depths, so that nothing is selected. Bars: 95% over prompts. Models from few "
    "to many parameters, at equal steps."
)
EFFECTS_CAPTION = (
    "Above: a level less the first of its factor, each the mean over every other setting. Below: how much larger that "
    "difference is in another setting. Bars: 95% paired over prompts. Filled: p ≤ 0.05 after Holm's correction."
)
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#767676", "#56B4E9", "#E69F00")
_LINES: tuple[Any, ...] = ("-", style.DASHED, (0, (1, 1.5)))
_EFFECTS = {
    "head": style.Style("#0072B2", "o", "head"),
    "stream": style.Style("#009E73", "s", "stream"),
    "sigma": style.Style("#CC79A7", "^", "noise level"),
    "model": style.Style("#D55E00", "D", "model"),
}
_INTERACTION = style.Style("#555555", "o", "interaction")


def plot_factorial(
    table: pd.DataFrame, *, facet: str, stream: str, ax: Axes | None = None, legend: bool = True
) -> Axes:
    """Draw the accuracy of every head at every noise level in every model, on one stream of one facet.

    Args:
        table: Result of ``probing.factorial``, or its CSV.
        facet: Which facet.
        stream: Which stream, or several joined by ``+``.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: The table has no such facet or stream.
    """
    cells = facet_rows(_cells(table), facet)
    rows = cells[cells["stream"] == stream]
    if rows.empty:
        raise ValueError(f"Got stream {stream!r}, expected one of {', '.join(cells['stream'].unique())}.")
    models = list(rows.sort_values("parameters", kind="stable")["model"].unique())
    styles = _cell_styles(table)
    with style.house_style():
        ax = style.new_axes(ax, (4.4, 4.0))
        for number, ((head, sigma), part) in enumerate(rows.groupby(["head", "sigma"], sort=False)):
            one = styles[head, sigma]
            # Beside one another, so that no bar hides another.
            x = [models.index(model) + 0.05 * (number - (len(styles) - 1) / 2) for model in part["model"]]
            ax.vlines(x, part["ci_low"], part["ci_high"], color=one.colour, linewidth=1.1, alpha=0.7)
            ax.plot(x, part["value"], one.marker, color=one.colour, linestyle=one.line)
        ax.set_xticks(range(len(models)), [shown_name(model) for model in models], rotation=20, fontsize=8.5)
        ax.set_xlim(-0.5, len(models) - 0.5)
        style.accuracy_axis(ax, rows["ceiling"].iloc[0])
        ax.set_title(f"{shown_name(facet)}: {stream.replace('+', ' and ')}\n{describe_counts(rows)}", fontsize=9.5)
        if legend:
            style.legend_below(ax, style.handles_of(styles), columns=2)
    return ax


def figure_factorial(table: pd.DataFrame) -> Figure:
    """Draw every facet (rows) on every stream (columns).

    Args:
        table: Result of ``probing.factorial``, or its CSV.
    """
    cells = _cells(table)
    facets, streams = facets_in(cells), list(cells["stream"].unique())
    width = max(3.6 * len(streams) + 0.6, 5.6)
    with facet_grid(
        len(facets),
        len(streams),
        (width, 3.1 * len(facets) + 1.6),
        title="Head, stream, noise level and model together",
        caption=CAPTION,
        handles=style.handles_of(_cell_styles(table)),
        legend_columns=int(width // 2.7),
        outer_labels=True,
        sharex=True,
        sharey="row",
    ) as (figure, grid):
        for axes, facet in zip(grid, facets, strict=True):
            for ax, stream in zip(axes, streams, strict=True):
                plot_factorial(table, facet=facet, stream=stream, ax=ax, legend=False)
    return figure


def plot_effects(table: pd.DataFrame, *, facet: str, ax: Axes | None = None, legend: bool = True) -> Axes:
    """Draw the main effects of a facet, and below them the interactions, with a line at zero.

    Args:
        table: Result of ``probing.factorial``, or its CSV.
        facet: Which facet.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: The table has no such facet.
    """
    rows = facet_rows(table, facet)
    effects = [*_of_kind(rows, "main"), *_of_kind(rows, "interaction")]
    if not effects:
        raise NothingToDraw(f"got facet {facet!r}, and nothing varies in its table.")
    with style.house_style():
        ax = style.new_axes(ax, (6.6, 1.6 + 0.26 * len(effects)))
        style.vertical_line(ax, 0)
        for number, row in enumerate(effects):
            values = 100 * row["value"], 100 * row["ci_low"], 100 * row["ci_high"]
            one = _EFFECTS[row["factor"]] if row["kind"] == "main" else _INTERACTION
            style.draw_interval(ax, -number, values, one, filled=row["verdict"] in DECIDED)
        ax.set_yticks(range(0, -len(effects), -1), [_label(row) for row in effects], fontsize=8)
        ax.set_ylim(-len(effects) + 0.4, 0.6)
        ax.set_xlabel("difference (percentage points)")
        ax.set_title(f"{shown_name(facet)}\n{describe_counts(rows)}", fontsize=10)
        if legend:
            style.legend_below(ax, _effect_handles(rows), columns=3)
    return ax


def figure_factorial_effects(table: pd.DataFrame) -> Figure:
    """Draw the effects of every facet, two in a row.

    Args:
        table: Result of ``probing.factorial``, or its CSV.
    """
    effects = table[table["kind"].isin(["main", "interaction"])]
    if effects.empty:
        raise NothingToDraw("nothing varies in the table.")
    facets = facets_in(effects)
    lines = int(effects.groupby("facet").size().max())
    across = min(len(facets), 2)
    down = -(-len(facets) // across)
    handles = _effect_handles(effects)
    with facet_grid(
        down,
        across,
        (max(5.4 * across, 7.0), (0.24 * lines + 0.9) * down + 1.3),
        title="Effects of head, stream, noise level and model",
        caption=EFFECTS_CAPTION,
        handles=handles,
        legend_columns=len(handles),
        sharex=True,
    ) as (figure, grid):
        for number, facet in enumerate(facets):
            ax = plot_effects(table, facet=facet, ax=grid.flat[number], legend=False)
            if number % across:
                ax.set_yticklabels([])
    return figure


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["kind"] == "cell"]


def _of_kind(rows: pd.DataFrame, kind: str) -> list[dict[Any, Any]]:
    return rows[rows["kind"] == kind].to_dict("records")


def _cell_styles(table: pd.DataFrame) -> dict[Any, style.Style]:
    """Give each head a colour and a marker, and each noise level a line."""
    cells = _cells(table)
    heads = dict(zip(cells["head"].unique(), zip(cycle(_COLOURS), cycle(style.MARKERS), strict=False), strict=False))
    lines = dict(zip(sorted(cells["sigma"].unique()), cycle(_LINES), strict=False))
    return {
        (head, sigma): style.Style(colour, marker, f"{head}, σ = {sigma:g}", line)
        for head, (colour, marker) in heads.items()
        for sigma, line in lines.items()
    }


def _effect_handles(rows: pd.DataFrame) -> list[Any]:
    styles = {**_EFFECTS, "interaction": _INTERACTION}
    present = {*rows.loc[rows["kind"] == "main", "factor"], *rows.loc[rows["kind"] == "interaction", "kind"]}
    return style.handles_of({key: one._replace(line="") for key, one in styles.items()}, present)


def _label(row: dict[Any, Any]) -> str:
    label = f"{_short(row['level'])} − {_short(row['against'])}"
    if row["kind"] == "main":
        return label
    return f"({label}) at {_short(row['other_level'])} − at {_short(row['other_against'])}"


def _short(level: object) -> str:
    return shown_name(level, 24).replace("+", " and ")
