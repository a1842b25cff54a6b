"""Stages marked on other figures, and how similar blocks are within and across them."""

from __future__ import annotations

from itertools import product
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probing.plots import style
from probing.plots.curves import describe_models
from probing.plots.grid import facet_grid
from probing.plots.text import shown_name
from probing.result_tables import published_rows

CAPTION = (
    "Mean similarity of two different blocks, of one stage and of two. Bands: 95% over "
    "prompts. Hollow: the same pairs of blocks if similarity depended on their distance alone. "
    "The stages of the lowest noise level are used at every level."
)
_STYLES = {
    "within": style.Style("#0072B2", "o", "within stages"),
    "across": style.Style("#D55E00", "s", "across stages", (0, (5, 2))),
}
_DRIFT: dict[str, Any] = {"markerfacecolor": "white", "markersize": 4, "linestyle": ":", "linewidth": 1.0}
_PANEL = ["measure", "stream", "part"]


def mark_stages(ax: Axes, stages: pd.DataFrame) -> Axes:
    """Mark stages on an axis of blocks: every second one shaded, their names along the upper edge.

    Args:
        ax: Axes with blocks along the horizontal axis.
        stages: One segmentation, a row a stage, as selected by
            :func:`probing.analysis.stage_table.select_stages`.

    Raises:
        ValueError: More than one segmentation.
    """
    stages = stages.sort_values("first_block")
    if stages["stage"].duplicated().any():
        raise ValueError("Got stages of several segmentations, expected those of one; pick it by select_stages.")
    limits = ax.get_xlim()
    for position, (name, first, last) in enumerate(stages[["stage", "first_block", "last_block"]].to_numpy()):
        # The outer stages reach to the edges of the axes.
        left = limits[0] if position == 0 else first - 0.5
        right = limits[1] if position == len(stages) - 1 else last + 0.5
        if position % 2:
            ax.axvspan(left, right, color="#000000", alpha=0.05, linewidth=0, zorder=0)
        if position:
            ax.axvline(left, color="#555555", linewidth=0.8, linestyle=":", zorder=1)
        ax.text(
            (left + right) / 2,
            0.985,
            shown_name(name, 12),
            transform=ax.get_xaxis_transform(),
            ha="center",
            va="top",
            fontsize=8,
            color="#555555",
            zorder=6,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )
    ax.set_xlim(limits)
    return ax


def plot_stage_similarity(
    table: pd.DataFrame,
    *,
    measure: str,
    source: str,
    stream: str = "image",
    part: str | None = None,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw mean similarity within and across stages against noise level or step (the paper's Figure 4b).

    The stages are the chosen ones; where the rule chose one stage, the best cut into the paper's four is drawn, and
    the title states it.

    Args:
        table: Result of :func:`probing.analysis.stages.stage_similarity`, or its CSV.
        measure: Which measure.
        source: ``images`` or ``trajectory``.
        stream: ``image`` or ``text``.
        part: Of the stream; its first if None.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: The table has no such rows.
    """
    rows = table[(table["measure"] == measure) & (table["source"] == source) & (table["stream"] == stream)]
    rows = rows[(rows["control"] == "trained") & (rows["stage"] == "all")]
    rows = rows[rows["part"] == (part or next(iter(rows["part"]), None))]
    if rows.empty:
        panels = table.loc[table["control"] == "trained", ["measure", "source", "stream"]].drop_duplicates()
        have = ", ".join(" ".join(one) for one in panels.to_numpy())
        raise ValueError(f"Got {measure} {source} {stream}, expected one of: {have}.")
    is_chosen = rows["chosen"].astype(bool)
    number = int(rows.loc[is_chosen, "number"].iloc[0])
    drawn = rows[is_chosen if number > 1 or is_chosen.all() else ~is_chosen]
    x_name = "step" if source == "trajectory" else "sigma"
    with style.house_style():
        ax = style.new_axes(ax, (4.6, 4.0))
        for kind, one in _STYLES.items():
            of_kind = drawn[drawn["kind"] == kind].sort_values(x_name)
            x = of_kind[x_name].astype(float)
            style.draw_band(ax, x, of_kind, one, hollow=False, alpha=0.18, zorder=4)
            ax.plot(x, of_kind["drift"], color=one.colour, zorder=3, **(_DRIFT | {"marker": one.marker}))
        _draw_published(ax, table, rows.iloc[0])
        _label_axis(ax, drawn, x_name)
        ax.set_ylabel(f"{measure} similarity")
        ax.set_title(_title(drawn.iloc[0], number), fontsize=10)
        if legend:
            style.legend_below(ax, _handles(), columns=2)
    return ax


def figure_stage_similarity(table: pd.DataFrame) -> Figure:
    """Draw every measure (rows) on images and along the trajectory (columns), with one legend and a caption.

    Args:
        table: Result of :func:`probing.analysis.stages.stage_similarity`, or its CSV.
    """
    trained = table[table["control"] == "trained"]
    panels = trained[_PANEL].drop_duplicates().to_numpy().tolist()
    sources = [source for source in ("images", "trajectory") if (trained["source"] == source).any()]
    caption = CAPTION
    if len(published := published_rows(table)):
        caption += f" Grey: {published['citation'].iloc[0]}, whose measure is not named."
    with facet_grid(
        len(panels),
        len(sources),
        (max(4.0 * len(sources), 5.6), 2.9 * len(panels) + 1.3),
        title=f"Similarity within and across stages: {describe_models(trained)}",
        caption=caption,
        handles=_handles(),
        legend_columns=2,
        sharey="row",
    ) as (figure, grid):
        for (row, (measure, stream, part)), (column, source) in product(enumerate(panels), enumerate(sources)):
            panel = trained[(trained[_PANEL] == [measure, stream, part]).all(axis=1)]
            if (panel["source"] == source).any():
                ax = plot_stage_similarity(
                    table, measure=measure, source=source, stream=stream, part=part, ax=grid[row, column], legend=False
                )
                if column:
                    ax.set_ylabel("")
    return figure


def _title(one: pd.Series, chosen: int) -> str:
    number = int(one["number"])
    tokens = f"{one['stream']} tokens" + ("" if one["part"] == "all" else f" ({one['part']})")
    stages = f"{number} stage{'s' if number > 1 else ''}" if number == chosen else f"cut into {number} (rule: 1 stage)"
    items = "images" if one["source"] == "images" else "generated images"
    return f"{one['measure']}, {tokens}: {stages}\n{one['n_items']:,} {items} of {one['n_prompts']:,} prompts"


def _handles() -> list[Line2D]:
    handles = []
    for kind, one in _STYLES.items():
        line = _DRIFT | {"marker": one.marker, "color": one.colour, "label": f"{kind}, by distance alone"}
        handles += [*style.handles_of({kind: one}), Line2D([], [], **line)]
    return handles


def _draw_published(ax: Axes, table: pd.DataFrame, one: pd.Series) -> None:
    """Draw the published levels of this model and source in grey."""
    rows = published_rows(table)
    rows = rows[(rows[["model", "source", "stream"]] == one[["model", "source", "stream"]]).all(axis=1)]
    within, across = (rows.loc[rows["kind"] == kind, "value"] for kind in ("within", "across"))
    for value in within:
        style.reference_line(ax, value, "paper,\nwithin", color="#767676", linestyle="--", linewidth=1.0)
    if len(across):
        low, high = across.min(), across.max()
        ax.axhspan(low, high, color="#767676", alpha=0.2, linewidth=0, zorder=0)
        style.reference_line(ax, (low + high) / 2, "paper,\nacross", color="#767676", linewidth=0.0)


def _label_axis(ax: Axes, rows: pd.DataFrame, x_name: str) -> None:
    if x_name == "sigma":
        ax.set_xlabel("noise level σ of the image")
        ax.set_xticks(sorted(rows["sigma"].unique()))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        return
    levels = rows.drop_duplicates("step").sort_values("step")
    ticks = {float(step): f"{int(step)}\nσ {sigma:.2g}" for step, sigma in levels[["step", "sigma"]].to_numpy()}
    ax.set_xticks(list(ticks), list(ticks.values()))
    steps = rows["steps"].iloc[0]
    ax.set_xlabel("denoising step" + ("" if pd.isna(steps) else f" of {int(steps)}"))
