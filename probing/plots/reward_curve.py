"""Reward curves: pair accuracy against block, with every control beside it."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probing.analysis.paper import PAPER_CURVE
from probing.plots import style
from probing.plots.series import say_counts
from probing.plots.stages import mark_stages
from probing.plots.text import shown_name, shown_names

CAPTION = (
    "Bands: 95% percentile cluster bootstrap over prompts. Points: the measured accuracies on test pairs. "
    "Filled: trained. Hollow: random-initialised."
)
_REFERENCES = " Finely dotted, with its interval: other rewards on the same pairs."
_BEST = " Ticks along the lower edge: blocks that may be the best of their curve (95% confidence set)."
_STAGES = " Every second stage is shaded (stages of image tokens at the lowest σ)."
_PUBLISHED = " Grey crosses: what the paper says of this model, on HPDv3."
PAPER = "#8A8A8A"
_REFERENCE_LINE = (0, (1, 1))
_REFERENCE_COLOURS = ("#CC79A7", "#B8860B", "#56B4E9")


def plot_reward_curve(
    table: pd.DataFrame,
    *,
    facet: str,
    stream: str = "image",
    reduction: str | None = None,
    ax: Axes | None = None,
    legend: bool = True,
    depth: bool = True,
) -> Axes:
    """Draw one facet's reward curves in one stream, a curve a noise level.

    Args:
        table: Of :func:`probing.analysis.reward_curve`, or its CSV.
        facet: Which facet.
        stream: ``image`` or ``text``.
        reduction: Which reduction; the first mean of the stream if None.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend, below the axes.
        depth: Whether to mark depth on the upper edge.

    Raises:
        ValueError: The table has no such trained cells.
    """
    panels = [name for shown, name in _panels(table) if shown == stream]
    if reduction is None and panels:
        reduction = panels[0]
    cells = table[(table["facet"] == facet) & (table["stream"] == stream) & (table["reduction"] == reduction)]
    trained = cells[cells["control"] == "trained"]
    if trained.empty:
        have = ", ".join(f"{f} in {s}" for f, s in sorted(set(zip(table["facet"], table["stream"], strict=True))))
        raise ValueError(f"Got facet {facet!r} in stream {stream!r}, expected trained cells of one of: {have}.")
    with style.house_style():
        ax = style.new_axes(ax, (5.8, 4.6))
        looks = style.sigma_looks(table.loc[table["control"] == "trained", "sigma"].tolist())
        _draw_shuffled(ax, cells[cells["control"] == "shuffled"])
        for sigma, part in _by_sigma(cells[cells["control"] == "random-init"]):
            _draw_curve(ax, part, style.RANDOM_INIT, looks[sigma][1] if sigma in looks else ".", trained=False)
        for sigma, part in _by_sigma(trained):
            _draw_curve(ax, part, *looks[sigma], trained=True)
        _draw_latents(ax, table[(table["facet"] == facet) & (table["control"] == "latents")], str(reduction))
        _draw_references(ax, table[(table["facet"] == facet) & (table["control"] == "reference")])
        _draw_paper(ax, trained, stream)
        _draw_stages(ax, trained)
        _draw_best(ax, trained, looks)
        style.reference_line(ax, 0.5, "chance", color=style.REFERENCE, linewidth=1.0)
        ceiling = trained["ceiling"].iloc[0]
        if pd.notna(ceiling):
            style.reference_line(
                ax, ceiling, "annotators'\nceiling", color=style.CEILING, linewidth=1.2, linestyle=(0, (6, 2, 1, 2))
            )
        last = trained.iloc[-1]
        style.block_axis(ax, round((last["block"] + 1) / last["depth"]), depth=depth)
        style.percent_axis(ax)
        ax.set_ylabel("pair accuracy")
        ax.set_title(
            f"{shown_name(facet)}, {stream} tokens ({str(reduction).replace('_', ' ')})\n{say_counts(trained)}",
            fontsize=10,
        )
        if legend:
            style.legend_below(ax, legend_handles(table), columns=2)
    return ax


def figure_reward_curves(table: pd.DataFrame) -> Figure:
    """Draw every facet (rows) in every stream (columns), with one legend and a caption.

    Args:
        table: Of :func:`probing.analysis.reward_curve`, or its CSV.
    """
    facets = sorted(table.loc[table["control"] == "trained", "facet"].unique())
    panels = _panels(table)
    with style.house_style():
        size = (max(3.5 * len(panels), 5.5), 2.9 * len(facets) + 1.6)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(facets), len(panels), squeeze=False, sharex=True, sharey="row")
        for row, facet in enumerate(facets):
            for column, (stream, reduction) in enumerate(panels):
                ax = plot_reward_curve(
                    table,
                    facet=facet,
                    stream=stream,
                    reduction=reduction,
                    ax=grid[row, column],
                    legend=False,
                    depth=row == 0,
                )
                ax.label_outer()
        caption = CAPTION + (_BEST if "may_be_best" in table else "")
        caption += _STAGES if "stage" in table and table["stage"].notna().any() else ""
        caption += _PUBLISHED if _paper_marks(table) else ""
        caption += _REFERENCES if (table["control"] == "reference").any() else ""
        style.caption_and_legend(figure, caption, legend_handles(table), columns=3 if len(panels) > 1 else 2)
        backbones = table.loc[table["control"] != "reference", "model"]
        models = shown_names(backbones)
        figure.suptitle(f"What {models or 'the backbone'} knows of preferences, block by block", fontsize=12)
    return figure


def legend_handles(table: pd.DataFrame) -> list[Line2D]:
    """Make the legend of what the table holds."""
    looks = style.sigma_looks(table.loc[table["control"] == "trained", "sigma"].tolist())
    handles = [
        Line2D([], [], color=colour, marker=marker, label=f"trained, σ = {sigma:g}")
        for sigma, (colour, marker) in looks.items()
    ]
    controls = set(table["control"])
    if "random-init" in controls:
        handles.append(
            Line2D(
                [],
                [],
                color=style.RANDOM_INIT,
                linestyle=(0, (4, 2)),
                linewidth=1.2,
                marker="o",
                markerfacecolor="white",
                label="random-initialised",
            )
        )
    if "latents" in controls:
        handles.append(Line2D([], [], color=style.LATENTS, linestyle=":", linewidth=2.2, label="pooled VAE latents"))
    if "shuffled" in controls:
        shuffles = table.loc[table["control"] == "shuffled", "seed"].nunique()
        said = "shuffled choices" + (f" (mean of {shuffles})" if shuffles > 1 else "")
        handles.append(Line2D([], [], color=style.SHUFFLED, linestyle="", marker="x", markersize=4, label=said))
    for name, colour in _reference_colours(table[table["control"] == "reference"]).items():
        handles.append(Line2D([], [], color=colour, linestyle=_REFERENCE_LINE, linewidth=1.6, label=shown_name(name)))
    return handles


def _draw_curve(ax: Axes, part: pd.DataFrame, colour: str, marker: str, *, trained: bool) -> None:
    part = part.sort_values("block")
    blocks = part["block"].astype(float)
    ax.fill_between(blocks, part["ci_low"], part["ci_high"], color=colour, alpha=0.18 if trained else 0.12, linewidth=0)
    ax.plot(
        blocks,
        part["value"],
        color=colour,
        marker=marker,
        linestyle="-" if trained else (0, (4, 2)),
        linewidth=1.8 if trained else 1.2,
        markersize=(5 if trained else 4) * (1.0 if len(part) <= 16 else 0.6),
        markerfacecolor=colour if trained else "white",
        zorder=4 if trained else 3,
    )


def _draw_best(ax: Axes, trained: pd.DataFrame, looks: dict[float, tuple[str, str]]) -> None:
    """Mark the confidence set of each curve's best block, a row of ticks a noise level, in the curve's own marker."""
    if "may_be_best" not in trained:
        return
    for row, (sigma, part) in enumerate(_by_sigma(trained[trained["may_be_best"] == 1])):
        colour, marker = looks[sigma]
        ax.plot(
            part["block"].astype(float),
            [0.015 + 0.035 * row] * len(part),
            marker,
            color=colour,
            markersize=3.6,
            transform=ax.get_xaxis_transform(),
            clip_on=False,
            zorder=5,
        )


def _draw_stages(ax: Axes, trained: pd.DataFrame) -> None:
    """Mark the stages of the lowest noise level: they may differ from level to level."""
    if "stage" not in trained or trained["stage"].isna().all():
        return
    named = trained.dropna(subset="stage").astype({"block": int})
    blocks = named[named["sigma"] == named["sigma"].min()].groupby("stage")["block"]
    mark_stages(ax, blocks.agg(first_block="min", last_block="max").reset_index())


def _draw_paper(ax: Axes, trained: pd.DataFrame, stream: str) -> None:
    """Mark what the paper says of single blocks of this model; it reads image tokens alone."""
    if stream != "image":
        return
    for block, value in _paper_marks(trained):
        ax.plot(block, value, "x", color=PAPER, markersize=8, markeredgewidth=2.0, zorder=2)
        ax.annotate(
            f"paper {100 * value:.1f}%",
            (block, value),
            xytext=(0, -11),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            color="#666666",
        )


def _paper_marks(table: pd.DataFrame) -> list[tuple[int, float]]:
    models = set(table["model"].dropna()) if "model" in table else set()
    return [(one.blocks[0], one.value) for one in PAPER_CURVE if one.backbone in models and one.blocks]


def _by_sigma(cells: pd.DataFrame) -> list[tuple[float, pd.DataFrame]]:
    return [(sigma, cells[cells["sigma"] == sigma]) for sigma in sorted(cells["sigma"].unique().tolist())]


def _draw_shuffled(ax: Axes, part: pd.DataFrame) -> None:
    means = part.groupby(["sigma", "block"], as_index=False)["value"].mean()
    ax.plot(means["block"].astype(float), means["value"], "x", color=style.SHUFFLED, markersize=4, zorder=2)


def _draw_latents(ax: Axes, part: pd.DataFrame, reduction: str) -> None:
    """Draw the latents under the same reduction, or else their mean or only one."""
    for name in (reduction, "mean", *part["reduction"]):
        row = part[part["reduction"] == name]
        if len(row):
            one = row.iloc[0]
            ax.axhspan(one["ci_low"], one["ci_high"], color=style.LATENTS, alpha=0.10, linewidth=0, zorder=0)
            ax.axhline(one["value"], color=style.LATENTS, linestyle=":", linewidth=2.2, zorder=2)
            return


def _draw_references(ax: Axes, part: pd.DataFrame) -> None:
    for name, colour in _reference_colours(part).items():
        one = part[part["model"] == name].iloc[0]
        ax.axhspan(one["ci_low"], one["ci_high"], color=colour, alpha=0.12, linewidth=0, zorder=0)
        ax.axhline(one["value"], color=colour, linestyle=_REFERENCE_LINE, linewidth=1.6, zorder=2)


def _reference_colours(part: pd.DataFrame) -> dict[str, str]:
    names = sorted(part["model"].unique())
    return {name: _REFERENCE_COLOURS[place % len(_REFERENCE_COLOURS)] for place, name in enumerate(names)}


def _panels(table: pd.DataFrame) -> list[tuple[str, str]]:
    """List (stream, reduction) of the trained cells: a stream's means, or its first reduction if it has none."""
    trained = table[table["control"] == "trained"]
    panels: list[tuple[str, str]] = []
    for stream, part in sorted(trained.groupby("stream"), key=lambda group: (group[0] != "image", group[0])):
        names = list(dict.fromkeys(part["reduction"]))
        panels += [(str(stream), str(name)) for name in ([n for n in names if n.startswith("mean")] or names[:1])]
    return panels
