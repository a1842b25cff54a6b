"""Block × block similarity as heatmaps, with the borders of the stages."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from probing.plots import style
from probing.plots.curves import NothingToDraw, describe_models
from probing.plots.grid import facet_grid
from probing.plots.text import shown_name

_MAX_COLUMNS = 5
_CAPTION = (
    "Similarity of two blocks' tokens, averaged over prompts, and its standard deviation over prompts (std). Squares: "
    "stages, the runs of similar blocks that the rule finds; none where it finds one stage."
)
_COLOUR_MAPS = {"value": "viridis", "std": "cividis"}
_ROW = ["measure", "stream", "part"]


def plot_similarity(
    table: pd.DataFrame,
    *,
    value: str = "value",
    colour_limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw one matrix, its first block in the upper left corner, its stages as squares.

    Args:
        table: Rows of :func:`probing.analysis.similarity.similarity_table` of one control, measure, part, and noise
            level or step; or of its CSV.
        value: ``value``, or ``std`` (over prompts).
        colour_limits: Limits of the colours; those of the matrix if None.
        ax: Axes to draw on; new ones if None.

    Returns:
        The axes; ``ax.images[0]`` has the colours, for a colour bar.

    Raises:
        ValueError: Rows of several matrices, or of none.
    """
    if table.empty or table.duplicated(["block", "other"]).any():
        raise ValueError(f"Expected each pair of blocks of one matrix once, got {len(table)} rows.")
    first, last = int(table["block"].min()), int(table["other"].max())
    matrix = np.full((last - first + 1, last - first + 1), np.nan)
    rows, columns = table["block"].to_numpy(dtype=int) - first, table["other"].to_numpy(dtype=int) - first
    matrix[rows, columns] = matrix[columns, rows] = table[value]
    with style.house_style():
        ax = style.new_axes(ax, (3.4, 3.2))
        low, high = colour_limits or (float(np.nanmin(matrix)), float(np.nanmax(matrix)))
        ax.imshow(
            matrix,
            cmap=_COLOUR_MAPS[value],
            vmin=low,
            vmax=high,
            interpolation="nearest",
            extent=(first - 0.5, last + 0.5, last + 0.5, first - 0.5),
        )
        ax.grid(False)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
        if value == "value":
            _outline_stages(ax, table)
    return ax


def figure_image_similarity(table: pd.DataFrame) -> Figure:
    """Draw similarity on images at several noise levels (columns): each measure's mean and spread, then the control's.

    Args:
        table: Result of :func:`probing.analysis.similarity.similarity_table`, or its CSV.
    """
    return _heatmaps(table, "images")


def figure_trajectory_similarity(table: pd.DataFrame) -> Figure:
    """Draw similarity along a denoising trajectory (columns), as the paper's Figures 4a and 6.

    Args:
        table: As for :func:`figure_image_similarity`.
    """
    return _heatmaps(table, "trajectory")


def _heatmaps(table: pd.DataFrame, source: str) -> Figure:
    rows = table[table["source"] == source]
    if rows.empty:
        have = ", ".join(table["source"].unique()) or "nothing"
        raise NothingToDraw(f"Got no similarity on {source}, expected some; the table has that on {have}.")
    column_of = "sigma" if source == "images" else "step"
    columns = _evenly_spread(sorted(rows[column_of].dropna().unique().tolist()))
    lines = _lines(rows)
    one = rows.iloc[0]
    items = "images" if source == "images" else "generated images"
    with facet_grid(
        len(lines),
        len(columns),
        (1.55 * len(columns) + 1.6, 1.62 * len(lines) + 1.5),
        title=f"Block similarity: {describe_models(rows)}",
        caption=f"{_CAPTION} {one['n_items']:,} {items} of {one['n_prompts']:,} prompts.",
    ) as (figure, grid):
        for number, (row, (label, line, value)) in enumerate(zip(grid, lines, strict=True)):
            lowest = number == len(lines) - 1
            limits = _limits(rows[(rows[_ROW] == line[_ROW].iloc[0]).all(axis=1)], value)
            for ax, position in zip(row, columns, strict=True):
                matrix = line[line[column_of] == position]
                plot_similarity(matrix, value=value, colour_limits=limits, ax=ax)
                if number == 0:
                    ax.set_title(_title(matrix.iloc[0], source), fontsize=12)
                ax.tick_params(labelbottom=lowest, labelleft=ax is row[0])
                if lowest:
                    ax.set_xlabel("block")
            row[0].set_ylabel(f"{label}\nblock")
            bar = figure.colorbar(row[-1].images[0], ax=row.tolist(), shrink=0.9, aspect=12, pad=0.015)
            bar.locator = MaxNLocator(nbins=4)
            bar.update_ticks()
            bar.outline.set_visible(False)
    return figure


def _lines(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame, str]]:
    """List the rows of panels: each measure's mean and spread, then the control's means."""
    lines = []
    for control, values in (("trained", ("value", "std")), ("random-init", ("value",))):
        of_control = rows[rows["control"] == control]
        for (measure, stream, part), line in of_control.groupby(_ROW, sort=False):
            tokens = "" if stream == "image" else f", {part} text"
            for value in values:
                label = f"{measure}{tokens}" + (", std" if value == "std" else "")
                lines.append((label if control == "trained" else f"{label},\nrandom-init", line, value))
    return lines


def _outline_stages(ax: Axes, table: pd.DataFrame) -> None:
    diagonal = table[table["block"] == table["other"]]
    stages = diagonal.groupby("stage", sort=False)["block"].agg(["min", "max"])
    if len(stages) < 2:
        return
    for name, (start, end) in zip(stages.index, stages.to_numpy(), strict=True):
        side = end - start + 1
        square = Rectangle((start - 0.5, start - 0.5), side, side, fill=False, linewidth=1.4, edgecolor="black")
        square.set_path_effects([patheffects.withStroke(linewidth=3.0, foreground="white")])
        square.set_clip_on(False)
        ax.add_patch(square)
        ax.text(
            (start + end) / 2,
            (start + end) / 2,
            shown_name(name, 12),
            ha="center",
            va="center",
            fontsize=8,
            fontweight="bold",
            path_effects=[patheffects.withStroke(linewidth=2.2, foreground="white")],
        )


def _limits(rows: pd.DataFrame, value: str) -> tuple[float, float]:
    """Choose one scale a measure, trained and control: similarity up to 1, spreads from 0, the other end rounded."""
    if value == "std":
        return 0.0, max(math.ceil(100 * rows["std"].max()) / 100, 0.01)
    return min(math.floor(20 * rows["value"].min()) / 20, 0.95), 1.0


def _evenly_spread(positions: list[Any]) -> list[Any]:
    """Select at most :data:`_MAX_COLUMNS`, evenly spread, the first and last among them."""
    if len(positions) <= _MAX_COLUMNS:
        return positions
    return [positions[round(i * (len(positions) - 1) / (_MAX_COLUMNS - 1))] for i in range(_MAX_COLUMNS)]


def _title(one: pd.Series, source: str) -> str:
    return f"σ = {one['sigma']:g}" if source == "images" else f"step {int(one['step'])}\nσ = {one['sigma']:.2g}"
