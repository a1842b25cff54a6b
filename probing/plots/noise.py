"""Noise levels and draws: accuracy over block and level, and the gain from several levels or draws."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probing.plots import style
from probing.plots.curves import (
    NothingToDraw,
    describe_counts,
    describe_models,
    describe_tokens,
    facets_in,
    panel_title,
    panels_of,
)
from probing.plots.grid import facet_grid
from probing.plots.heatmap import accuracy_bar, block_ticks, draw_heatmap, limits_of
from probing.plots.text import shown_name

CAPTION = (
    "Accuracy on test pairs, in percent. Framed: the best noise level of each block, chosen on training pairs; in "
    "brackets the percentage of bootstrap resamples of training prompts in which it is the best."
)
DRAWS_CAPTION = (
    "Points: measured on test pairs. Bars: 95% over prompts, paired where a gain is shown. Rewards: "
    "mean of log odds, a probe each. Features: one probe on levels side by side, or on the mean over draws."
)
_METHODS = {
    "rewards": style.Style(style.REFERENCE, "o", "all levels: rewards"),
    "features": style.Style(style.REFERENCE, "s", "all levels: features", style.DASHED),
}
_METRICS = {
    "reward_ratio": "variance of a reward over draws\n÷ over items",
    "margin_ratio": "variance of a margin over draws\n÷ over pairs",
    "flip_rate": "pairs that two draws\norder differently",
}


def plot_noise(
    table: pd.DataFrame,
    *,
    facet: str,
    stream: str = "image",
    reduction: str | None = None,
    ax: Axes | None = None,
    limits: tuple[float, float] | None = None,
) -> Axes:
    """Draw accuracy over block (columns) and noise level (rows, noisy above), the best level of each block framed.

    Args:
        table: Result of :func:`probing.analysis.noise.noise`, or its CSV.
        facet: Which facet.
        stream: Which stream.
        reduction: Which reduction; the stream's first if None.
        ax: Axes to draw on; new ones if None.
        limits: Limits of the colour map; those of the panel if None.

    Raises:
        ValueError: The table has no such cells.
    """
    cells = _rows(table, facet, stream, reduction, "cell")
    blocks, sigmas = sorted(cells["block"].astype(int).unique()), sorted(cells["sigma"].unique(), reverse=True)
    values, framed = np.full((len(sigmas), len(blocks)), np.nan), np.zeros((len(sigmas), len(blocks)), dtype=bool)
    agreement = {}
    for row in cells.to_dict("records"):
        at = sigmas.index(row["sigma"]), blocks.index(int(row["block"]))
        values[at], framed[at] = row["value"], bool(row["best_sigma"])
        if framed[at] and pd.notna(row["agreement"]):
            agreement[at] = f"({100 * row['agreement']:.0f})"
    with style.house_style():
        ax = style.new_axes(ax, (5.6, 1.6 + 0.5 * len(sigmas)))
        draw_heatmap(ax, values, limits or limits_of(values), framed=framed, second_lines=agreement)
        block_ticks(ax.xaxis, blocks, "block (its output)")
        ax.set_yticks(range(len(sigmas)), [f"{sigma:g}" for sigma in sigmas])
        ax.set_ylabel("noise level σ")
        tokens = describe_tokens(stream, cells["reduction"].iloc[0])
        ax.set_title(panel_title(facet, tokens, cells, between=", "), fontsize=10)
    return ax


def figure_noise(table: pd.DataFrame) -> Figure:
    """Draw every facet (rows) in every stream (columns).

    Args:
        table: Result of :func:`probing.analysis.noise.noise`, or its CSV.
    """
    cells = table[table["kind"] == "cell"]
    facets, panels = facets_in(cells), panels_of(cells)
    blocks, sigmas = cells["block"].nunique(), cells["sigma"].nunique()
    limits = limits_of(cells["value"].to_numpy(dtype=float))
    width = max(len(panels) * max(3.2, 0.42 * min(blocks, 24)) + 1.6, 6.5)
    with facet_grid(
        len(facets),
        len(panels),
        (width, len(facets) * (1.3 + 0.55 * sigmas) + 1.3),
        title=f"Accuracy by noise level and block: {describe_models(table)}",
        caption=CAPTION,
        outer_labels=True,
    ) as (figure, grid):
        for row, facet in zip(grid, facets, strict=True):
            for ax, (stream, reduction) in zip(row, panels, strict=True):
                plot_noise(table, facet=facet, stream=stream, reduction=reduction, ax=ax, limits=limits)
        accuracy_bar(list(grid.flat), limits)
    return figure


def plot_gain_of_many(
    table: pd.DataFrame,
    *,
    facet: str,
    kind: str,
    stream: str = "image",
    reduction: str | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw, by block, the gain from several noise levels (``sigmas``), several draws (``draws``) or shared noise
    (``pairing``).

    Args:
        table: Result of :func:`probing.analysis.noise.noise`, or its CSV.
        facet: Which facet.
        kind: Which of the three.
        stream: Which stream.
        reduction: Which reduction; the stream's first if None.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: The table has no such rows.
    """
    rows = _rows(table, facet, stream, reduction, kind)
    if kind == "draws":
        rows = rows[(rows["draws"] == rows["draws"].max()) & (rows["method"] == "rewards")]
    title = {
        "sigmas": "all levels − the best one",
        "draws": f"{rows['draws'].max()} draws − one",
        "pairing": "shared − independent noise",
    }[kind]
    by, styles = ("method", _METHODS) if kind == "sigmas" else ("sigma", _sigma_styles(table))
    with style.house_style():
        ax = style.new_axes(ax, (5.4, 3.4))
        ax.axhline(0, color=style.REFERENCE, linewidth=1.0, zorder=1)
        _draw_curves(ax, rows, by, styles, ("gain", "gain_low", "gain_high"), scale=100.0)
        ax.set_ylabel("gain (points)")
        ax.set_title(f"{shown_name(facet)}, {stream}\n{title}", fontsize=9)
        if legend:
            style.legend_below(ax, style.handles_of(styles, set(rows[by])), columns=3)
    return ax


def plot_redraws(
    table: pd.DataFrame,
    *,
    facet: str,
    metric: str = "margin_ratio",
    stream: str = "image",
    reduction: str | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw, by block and a curve a noise level, how much a probe's output varies over draws of the noise.

    Args:
        table: Result of :func:`probing.analysis.noise.noise`, or its CSV.
        facet: Which facet.
        metric: ``reward_ratio``, ``margin_ratio`` or ``flip_rate``.
        stream: Which stream.
        reduction: Which reduction; the stream's first if None.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: The table has no such rows.
    """
    rows = _rows(table, facet, stream, reduction, "redraw")
    rows = rows[(rows["metric"] == metric) & (rows["pair_noise"] == rows["pair_noise"].iloc[0])]
    styles = _sigma_styles(table)
    with style.house_style():
        ax = style.new_axes(ax, (5.4, 3.4))
        _draw_curves(ax, rows, "sigma", styles, ("value", "ci_low", "ci_high"), scale=1.0)
        # Fix the bottom only: panels that share the axis have points of their own above.
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]), auto=True)
        ax.set_ylabel(_METRICS[metric], fontsize=9.5)
        if metric == "flip_rate":
            ax.yaxis.set_major_formatter(style.percent())
        ax.set_title(f"{shown_name(facet)}, {stream}\n{rows['draws'].iloc[0]} draws", fontsize=9)
        if legend:
            style.legend_below(ax, style.handles_of(styles, set(rows["sigma"])), columns=3)
    return ax


def figure_noise_draws(table: pd.DataFrame) -> Figure:
    """Draw, for every facet in the table's first stream, the gains from levels, draws and shared noise, and the
    variation over draws.

    Args:
        table: Result of :func:`probing.analysis.noise.noise`, or its CSV; what it does not hold is left out.

    Raises:
        NothingToDraw: It holds neither several levels nor several draws.
    """
    facets = facets_in(table)
    stream, reduction = panels_of(table[table["kind"] == "cell"])[0]
    kinds = set(table.loc[(table["stream"] == stream) & (table["reduction"] == reduction), "kind"])
    gains = [kind for kind in ("sigmas", "draws", "pairing") if kind in kinds]
    metrics = ["margin_ratio", "flip_rate"] if "redraw" in kinds else []
    rows = [*gains, *metrics]
    if not rows:
        raise NothingToDraw("the table holds one noise level and one draw; measure several.")
    with facet_grid(
        len(rows),
        len(facets),
        (max(2.4 * len(facets) + 0.6, 5.5), 2.2 * len(rows) + 1.5),
        title=f"Several noise levels and draws: {describe_models(table)}\n{describe_counts(table)}",
        caption=DRAWS_CAPTION,
        handles=style.handles_of(_sigma_styles(table) | (_METHODS if "sigmas" in gains else {})),
        legend_columns=3,
        outer_labels=True,
        sharex=True,
        sharey="row",
    ) as (figure, grid):
        for (line, name), (column, facet) in product(enumerate(rows), enumerate(facets)):
            ax = grid[line, column]
            if name in gains:
                plot_gain_of_many(
                    table, facet=facet, kind=name, stream=stream, reduction=reduction, ax=ax, legend=False
                )
            else:
                plot_redraws(table, facet=facet, metric=name, stream=stream, reduction=reduction, ax=ax, legend=False)
    return figure


def _sigma_styles(table: pd.DataFrame) -> dict[Any, style.Style]:
    return style.sigma_styles(table["sigma"].dropna().tolist())


def _draw_curves(
    ax: Axes,
    rows: pd.DataFrame,
    group: str,
    styles: dict[Any, style.Style],
    columns: tuple[str, str, str],
    *,
    scale: float,
) -> None:
    """Draw a curve with bars for each value of the column ``group``, side by side so that none hides another."""
    names = [name for name in styles if name in set(rows[group])]
    for index, name in enumerate(names):
        part = rows[rows[group] == name].sort_values("block")
        blocks = part["block"].astype(float) + 0.18 * (index - (len(names) - 1) / 2)
        value, low, high = (scale * part[column] for column in columns)
        series = styles[name]
        ax.vlines(blocks, low, high, color=series.colour, linewidth=1.4)
        ax.plot(
            blocks,
            value,
            color=series.colour,
            marker=series.marker,
            linestyle=series.line,
            linewidth=1.0,
            markersize=4.5,
        )
    style.block_axis(ax)


def _rows(table: pd.DataFrame, facet: str, stream: str, reduction: str | None, kind: str) -> pd.DataFrame:
    rows = table[(table["kind"] == kind) & (table["facet"] == facet) & (table["stream"] == stream)]
    rows = rows[rows["reduction"] == (reduction or (rows["reduction"].iloc[0] if len(rows) else None))]
    if rows.empty:
        raise ValueError(f"Got {kind!r} of facet {facet!r} in stream {stream!r}, and the table has none.")
    return rows
