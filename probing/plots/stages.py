"""Stages on other figures, and how alike blocks are within and across them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probing.analysis.paper import PAPER_SIMILARITY
from probing.plots import style
from probing.plots.text import shown_name, shown_names

CAPTION = (
    "Mean similarity of two different blocks, of one stage and of two. Bands: 95% percentile cluster bootstrap over "
    "prompts. Hollow: what the same pairs of blocks would have if similarity depended on their distance alone. "
    "Blocks are cut at every noise level as they are at the lowest."
)
_KINDS: Mapping[str, tuple[str, str, Any]] = {"within": ("#0072B2", "o", "-"), "across": ("#D55E00", "s", (0, (5, 2)))}
_PANEL = ["measure", "stream", "part"]


def mark_stages(ax: Axes, stages: pd.DataFrame) -> Axes:
    """Mark stages on an axis of blocks: every second one shaded, their names along the upper edge.

    Args:
        ax: Axes with blocks along the horizontal axis.
        stages: One segmentation, a row a stage, as :func:`probing.analysis.stage_table.select_stages` picks it.

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

    The stages are the chosen ones; where the rule chose one stage alone, the best cut into the paper's four is drawn,
    and the title says so.

    Args:
        table: Of :func:`probing.analysis.stages.stage_similarity`, or its CSV.
        measure: Which measure.
        source: ``images`` or ``trajectory``.
        stream: ``image`` or ``text``.
        part: Of the stream; its first if None.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend, below the axes.

    Raises:
        ValueError: The table has no such rows.
    """
    rows = table[(table["measure"] == measure) & (table["source"] == source) & (table["stream"] == stream)]
    rows = rows[(rows["control"] == "trained") & (rows["stage"] == "all")]
    rows = rows[rows["part"] == (part or next(iter(rows["part"]), None))]
    if rows.empty:
        have = ", ".join(" ".join(one) for one in table[["measure", "source", "stream"]].drop_duplicates().to_numpy())
        raise ValueError(f"Got {measure} {source} {stream}, expected one of: {have}.")
    chosen = rows[rows["chosen"].astype(bool)]
    runs = int(chosen["number"].iloc[0])
    drawn = chosen if runs > 1 else rows[~rows["chosen"].astype(bool)]
    drawn = chosen if drawn.empty else drawn
    across_steps = source == "trajectory"
    x_name = "step" if across_steps else "sigma"
    with style.house_style():
        ax = style.new_axes(ax, (4.6, 4.0))
        for kind, (colour, marker, line) in _KINDS.items():
            part_of = drawn[drawn["kind"] == kind].sort_values(x_name)
            x = part_of[x_name].astype(float)
            ax.fill_between(x, part_of["ci_low"], part_of["ci_high"], color=colour, alpha=0.18, linewidth=0)
            ax.plot(x, part_of["value"], color=colour, marker=marker, linestyle=line, zorder=4)
            ax.plot(
                x,
                part_of["drift"],
                color=colour,
                marker=marker,
                markerfacecolor="white",
                markersize=4,
                linestyle=":",
                linewidth=1.0,
                zorder=3,
            )
        _draw_paper(ax, rows)
        _label_axis(ax, drawn, across_steps)
        ax.set_ylabel(f"{measure} similarity")
        ax.set_title(_title(drawn.iloc[0], runs), fontsize=10)
        if legend:
            style.legend_below(ax, legend_handles(), columns=2)
    return ax


def figure_stage_similarity(table: pd.DataFrame) -> Figure:
    """Draw every measure (rows) on images and along the trajectory (columns), with one legend and a caption.

    Args:
        table: Of :func:`probing.analysis.stages.stage_similarity`, or its CSV.
    """
    trained = table[table["control"] == "trained"]
    panels = trained[_PANEL].drop_duplicates().to_numpy().tolist()
    sources = [source for source in ("images", "trajectory") if (trained["source"] == source).any()]
    with style.house_style():
        size = (max(4.0 * len(sources), 5.6), 2.9 * len(panels) + 1.3)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(panels), len(sources), squeeze=False, sharey="row")
        for row, (measure, stream, part) in enumerate(panels):
            for column, source in enumerate(sources):
                ax = grid[row, column]
                there = trained[(trained[_PANEL] == [measure, stream, part]).all(axis=1)]
                if not (there["source"] == source).any():
                    ax.set_axis_off()
                    continue
                plot_stage_similarity(
                    trained, measure=measure, source=source, stream=stream, part=part, ax=ax, legend=False
                )
                if column:
                    ax.set_ylabel("")
        caption = CAPTION
        if (table["model"] == PAPER_SIMILARITY.backbone).any():
            caption += f" Grey: {PAPER_SIMILARITY.source}, whose measure is not named."
        style.caption_and_legend(figure, caption, legend_handles(), columns=2)
        models = shown_names(trained["model"])
        figure.suptitle(f"How alike are blocks of {models or 'the backbone'} within and across stages?", fontsize=12)
    return figure


def _title(one: pd.Series, runs: int) -> str:
    drawn = int(one["number"])
    tokens = f"{one['stream']} tokens" + ("" if one["part"] == "all" else f" ({one['part']})")
    said = f"{drawn} stage{'s' if drawn > 1 else ''}" if drawn == runs else f"cut into {drawn} (rule: 1 stage)"
    counted = "images" if one["source"] == "images" else "generated images"
    return f"{one['measure']}, {tokens}: {said}\n{one['n_items']:,} {counted} of {one['n_prompts']:,} prompts"


def legend_handles() -> list[Line2D]:
    handles = []
    for kind, (colour, marker, line) in _KINDS.items():
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle=line, label=f"{kind} stages"))
        handles.append(
            Line2D(
                [],
                [],
                color=colour,
                marker=marker,
                linestyle=":",
                linewidth=1.0,
                markersize=4,
                markerfacecolor="white",
                label=f"{kind}, by distance alone",
            )
        )
    return handles


def _draw_paper(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the published levels behind the model that they are of."""
    one = rows.iloc[0]
    if one["model"] != PAPER_SIMILARITY.backbone or one["source"] != "trajectory" or one["stream"] != "image":
        return
    style.reference_line(ax, PAPER_SIMILARITY.within, "paper,\nwithin", color="#767676", linestyle="--", linewidth=1.0)
    ax.axhspan(*PAPER_SIMILARITY.across, color="#767676", alpha=0.2, linewidth=0, zorder=0)
    style.reference_line(ax, sum(PAPER_SIMILARITY.across) / 2, "paper,\nacross", color="#767676", linewidth=0.0)


def _label_axis(ax: Axes, rows: pd.DataFrame, across_steps: bool) -> None:
    if not across_steps:
        ax.set_xlabel("noise level σ of the image")
        ax.set_xticks(sorted(rows["sigma"].unique()))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        return
    levels = rows.drop_duplicates("step").sort_values("step")
    ticks = [(float(step), f"{int(step)}\nσ {sigma:.2g}") for step, sigma in levels[["step", "sigma"]].to_numpy()]
    ax.set_xticks([tick for tick, _ in ticks], [label for _, label in ticks])
    steps = rows["steps"].iloc[0]
    ax.set_xlabel("denoising step" + ("" if pd.isna(steps) else f" of {int(steps)}"))
