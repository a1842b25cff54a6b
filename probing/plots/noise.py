"""Noise levels and draws: the heatmap with its ridge, and what several levels or draws together gain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probing.plots import style
from probing.plots.heatmap import MOST_NUMBERS, accuracy_bar, draw_heatmap, limits_of
from probing.plots.series import NothingToDraw, say_counts
from probing.plots.text import shown_name, shown_names

CAPTION = (
    "Accuracy on test pairs, in percent. Framed: the best noise level of each block, chosen on training pairs; in "
    "brackets in how many percent of bootstrap resamples of training prompts it is the best."
)
DRAWS_CAPTION = (
    "Points: measured on test pairs. Bars: 95% cluster bootstrap over prompts, paired where a gain is shown. Rewards: "
    "mean of log odds, a probe each. Features: one probe on levels side by side, or on the mean over draws."
)
_METHODS: dict[str, tuple[Any, str]] = {"rewards": ("-", "o"), "features": ((0, (4, 2)), "s")}


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
        table: Of :func:`probing.analysis.noise.noise`, or its CSV.
        facet: Which facet.
        stream: Which stream.
        reduction: Which reduction; the stream's first if None.
        ax: Axes to draw on; new ones if None.
        limits: Of the colour map; the panel's own if None.

    Raises:
        ValueError: The table has no such cells.
    """
    cells = _cells(table, facet, stream, reduction)
    blocks, sigmas = sorted(cells["block"].astype(int).unique()), sorted(cells["sigma"].unique(), reverse=True)
    values, framed, below = np.full((len(sigmas), len(blocks)), np.nan), np.zeros((len(sigmas), len(blocks)), bool), []
    for row in cells.to_dict("records"):
        at = sigmas.index(row["sigma"]), blocks.index(int(row["block"]))
        values[at], framed[at] = row["value"], bool(row["best_sigma"])
        if framed[at] and pd.notna(row["agreement"]):
            below.append((*at, f"({100 * row['agreement']:.0f})"))
    with style.house_style():
        ax = style.new_axes(ax, (5.6, 1.6 + 0.5 * len(sigmas)))
        draw_heatmap(ax, values, limits or limits_of(values), outlined=framed, below=below)
        shown = blocks if len(blocks) <= MOST_NUMBERS else blocks[:: -(-len(blocks) // 8)]
        ax.set_xticks([blocks.index(block) for block in shown], [str(block) for block in shown])
        ax.set_yticks(range(len(sigmas)), [f"{sigma:g}" for sigma in sigmas])
        ax.set_xlabel("block (its output)")
        ax.set_ylabel("noise level σ")
        one = cells.iloc[0]
        ax.set_title(
            f"{shown_name(facet)}, {stream} tokens ({str(one['reduction']).replace('_', ' ')})\n{say_counts(cells)}",
            fontsize=10,
        )
    return ax


def figure_noise(table: pd.DataFrame) -> Figure:
    """Draw every facet (rows) in every stream (columns).

    Args:
        table: Of :func:`probing.analysis.noise.noise`, or its CSV.
    """
    cells = table[table["kind"] == "cell"]
    facets = sorted(cells["facet"].unique())
    panels = _panels(cells)
    blocks, sigmas = cells["block"].nunique(), cells["sigma"].nunique()
    with style.house_style():
        size = (
            max(len(panels) * max(3.2, 0.42 * min(blocks, 24)) + 1.6, 6.5),
            len(facets) * (1.3 + 0.55 * sigmas) + 1.3,
        )
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(facets), len(panels), squeeze=False)
        for row, facet in enumerate(facets):
            limits = limits_of(cells.loc[cells["facet"] == facet, "value"].to_numpy(dtype=float))
            for column, (stream, reduction) in enumerate(panels):
                ax = plot_noise(
                    table, facet=facet, stream=stream, reduction=reduction, ax=grid[row, column], limits=limits
                )
                ax.label_outer()
            accuracy_bar(list(grid[row]), limits)
        style.caption_and_legend(figure, CAPTION, [], columns=1)
        models = shown_names(table["model"])
        figure.suptitle(f"At which noise level {models or 'the backbone'} is read best", fontsize=12)
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
    """Draw, block by block, what several noise levels (``sigmas``) or draws (``draws``), or shared noise (``pairing``),
    gain.

    Args:
        table: Of :func:`probing.analysis.noise.noise`, or its CSV.
        facet: Which facet.
        kind: Which of the three.
        stream: Which stream.
        reduction: Which reduction; the stream's first if None.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend, below the axes.

    Raises:
        ValueError: The table has no such rows.
    """
    rows = _rows(table, facet, stream, reduction, kind)
    if kind == "draws":
        rows = rows[(rows["draws"] == rows["draws"].max()) & (rows["method"] == "rewards")]
    says = {
        "sigmas": "all levels − the best one",
        "draws": f"{rows['draws'].max()} draws − one",
        "pairing": "shared − independent noise",
    }[kind]
    looks = style.sigma_looks(table["sigma"].dropna().tolist())
    with style.house_style():
        ax = style.new_axes(ax, (5.4, 3.4))
        ax.axhline(0, color=style.REFERENCE, linewidth=1.0, zorder=1)
        if kind == "sigmas":
            curves = [
                (str(m), style.REFERENCE, _METHODS[str(m)], part) for m, part in rows.groupby("method", sort=False)
            ]
        else:
            curves = [
                (f"σ = {sigma:g}", looks[sigma][0], ("-", looks[sigma][1]), rows[rows["sigma"] == sigma])
                for sigma in sorted(rows["sigma"].unique())
            ]
        for place, (label, colour, (line, marker), part) in enumerate(curves):
            _draw_points(
                ax,
                part,
                [f"gain{end}" for end in ("", "_low", "_high")],
                place,
                len(curves),
                100.0,
                color=colour,
                linestyle=line,
                marker=marker,
                label=label,
            )
        style.block_axis(ax, None, depth=False)
        ax.set_ylabel("gain (points)")
        ax.set_title(f"{shown_name(facet)}, {stream}\n{says}", fontsize=9)
        if legend:
            style.legend_below(ax, ax.get_legend_handles_labels()[0], columns=3)
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
    """Draw, block by block and a curve a noise level, how far redrawn noise moves what a probe says.

    Args:
        table: Of :func:`probing.analysis.noise.noise`, or its CSV.
        facet: Which facet.
        metric: ``reward_ratio``, ``margin_ratio`` or ``flip_rate``.
        stream: Which stream.
        reduction: Which reduction; the stream's first if None.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend, below the axes.

    Raises:
        ValueError: The table has no such rows.
    """
    rows = _rows(table, facet, stream, reduction, "redraw")
    rows = rows[(rows["metric"] == metric) & (rows["pair_noise"] == rows["pair_noise"].iloc[0])]
    labels = {
        "reward_ratio": "variance of a reward over draws\n÷ over items",
        "margin_ratio": "variance of a margin over draws\n÷ over pairs",
        "flip_rate": "pairs that two draws\norder differently",
    }
    looks = style.sigma_looks(table["sigma"].dropna().tolist())
    with style.house_style():
        ax = style.new_axes(ax, (5.4, 3.4))
        sigmas = sorted(rows["sigma"].unique())
        for place, sigma in enumerate(sigmas):
            colour, marker = looks[sigma]
            _draw_points(
                ax,
                rows[rows["sigma"] == sigma],
                ["value", "ci_low", "ci_high"],
                place,
                len(sigmas),
                1.0,
                color=colour,
                linestyle="-",
                marker=marker,
                label=f"σ = {sigma:g}",
            )
        # The bottom only: the top stays free, for panels that share the axis have points of their own.
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]), auto=True)
        style.block_axis(ax, None, depth=False)
        ax.set_ylabel(labels[metric], fontsize=9.5)
        if metric == "flip_rate":
            style.percent_axis(ax)
        ax.set_title(f"{shown_name(facet)}, {stream}\n{rows['draws'].iloc[0]} draws", fontsize=9)
        if legend:
            style.legend_below(ax, ax.get_legend_handles_labels()[0], columns=3)
    return ax


def figure_noise_draws(table: pd.DataFrame) -> Figure:
    """Draw, for every facet in the table's first stream, what levels, draws and shared noise gain, and what they move.

    Args:
        table: Of :func:`probing.analysis.noise.noise`, or its CSV; what it does not hold is left out.

    Raises:
        NothingToDraw: It holds neither several levels nor several draws.
    """
    facets = sorted(table["facet"].unique())
    stream, reduction = _panels(table[table["kind"] == "cell"])[0]
    there = set(table.loc[(table["stream"] == stream) & (table["reduction"] == reduction), "kind"])
    gains = [kind for kind in ("sigmas", "draws", "pairing") if kind in there]
    moved = ["margin_ratio", "flip_rate"] if "redraw" in there else []
    if not gains + moved:
        raise NothingToDraw("the table holds one noise level and one draw; measure several.")
    with style.house_style():
        size = (max(2.4 * len(facets) + 0.6, 5.5), 2.2 * len(gains + moved) + 1.5)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(gains + moved), len(facets), squeeze=False, sharex=True, sharey="row")
        for column, facet in enumerate(facets):
            where: dict[str, Any] = {"facet": facet, "stream": stream, "reduction": reduction, "legend": False}
            for row, kind in enumerate(gains):
                plot_gain_of_many(table, kind=kind, ax=grid[row, column], **where)
            for row, metric in enumerate(moved, start=len(gains)):
                plot_redraws(table, metric=metric, ax=grid[row, column], **where)
        for ax in grid.flat:
            ax.label_outer()
        handles = [
            Line2D([], [], color=colour, marker=marker, label=f"σ = {sigma:g}")
            for sigma, (colour, marker) in style.sigma_looks(table["sigma"].dropna().tolist()).items()
        ]
        handles += [
            Line2D([], [], color=style.REFERENCE, linestyle=line, marker=marker, label=f"all levels: {method}")
            for method, (line, marker) in _METHODS.items()
            if "sigmas" in gains
        ]
        style.caption_and_legend(figure, DRAWS_CAPTION, handles, columns=3)
        models = shown_names(table["model"])
        said = f"Levels and draws of the noise: {models or 'the backbone'}\n{say_counts(table)}"
        figure.suptitle(said, fontsize=12)
    return figure


def _draw_points(
    ax: Axes, part: pd.DataFrame, columns: Sequence[str], place: int, curves: int, scale: float, **look
) -> None:
    """Draw a curve with bars, curves side by side so that none hides another."""
    part = part.sort_values("block")
    blocks = part["block"].astype(float) + 0.18 * (place - (curves - 1) / 2)
    value, low, high = (scale * part[column] for column in columns)
    colour = look.pop("color")
    ax.vlines(blocks, low, high, color=colour, linewidth=1.4)
    ax.plot(blocks, value, color=colour, linewidth=1.0, markersize=4.5, **look)


def _rows(table: pd.DataFrame, facet: str, stream: str, reduction: str | None, kind: str) -> pd.DataFrame:
    rows = table[(table["kind"] == kind) & (table["facet"] == facet) & (table["stream"] == stream)]
    rows = rows[rows["reduction"] == (reduction or (rows["reduction"].iloc[0] if len(rows) else None))]
    if rows.empty:
        raise ValueError(f"Got {kind!r} of facet {facet!r} in stream {stream!r}, and the table has none.")
    return rows


def _cells(table: pd.DataFrame, facet: str, stream: str, reduction: str | None) -> pd.DataFrame:
    return _rows(table, facet, stream, reduction, "cell")


def _panels(cells: pd.DataFrame) -> list[tuple[str, str]]:
    """List (stream, reduction), image first: a stream's means, or its first reduction if it has none."""
    panels: list[tuple[str, str]] = []
    for stream, part in sorted(cells.groupby("stream"), key=lambda group: (group[0] != "image", group[0])):
        names = list(dict.fromkeys(part["reduction"]))
        panels += [(str(stream), str(name)) for name in ([n for n in names if n.startswith("mean")] or names[:1])]
    return panels
