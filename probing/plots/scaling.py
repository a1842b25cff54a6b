"""Accuracy against size, cost and training, and against relative depth; what the paper has stands beside."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from probing.analysis.paper import Published, published
from probing.analysis.trends import over_training
from probing.plots import style
from probing.plots.series import SERIES, NothingToDraw, best_series, say_counts, say_series
from probing.plots.text import shown_name

CAPTION = (
    "One head recipe for all models. Points: accuracy on test pairs; bars: 95% cluster bootstrap over prompts. Lines: "
    "least squares on the logarithm; slopes with intervals over the same prompts, and, of three models or more, over "
    "models (Student's t). Hollow: the best block of random-initialised models. A facet's stream and noise level are "
    "those that are best on training pairs, over all trained models. In grey, apart: what is published of other models."
)
DEPTH_CAPTION = (
    "Bands: 95% cluster bootstrap over prompts. Points: accuracies of single blocks on test pairs. Dashed and hollow: "
    "random-initialised. All at the lowest noise level; of checkpoints the last."
)
AGAINST = {"parameters": "parameters", "forward_flops": "FLOPs of one forward", "steps": "training steps"}
_HEADS = {
    "best": ("#0072B2", "o", "-", "best block"),
    "best-matched": ("#D55E00", "D", (0, (1, 1.5)), "best block at the narrowest width"),
    "stages": ("#009E73", "s", (0, (5, 2)), "a block of every stage"),
}
_DEPTH = ("#CC79A7", "^", (0, (3, 1, 1, 1)))
_MOST_TICKS = 6
_PAPER = "#8A8A8A"
_PAPER_MARKS = {"trained": "P", "frozen": "o", "random-init": "x"}


def plot_scaling(
    table: pd.DataFrame,
    *,
    facet: str,
    against: str = "parameters",
    depth: float = 0.5,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw a facet's accuracies against one measure of size, in the series that is best on training pairs.

    Args:
        table: Of :func:`probing.analysis.scaling.scaling`, or its CSV.
        facet: Which facet.
        against: ``parameters``, ``forward_flops`` or ``steps``.
        depth: Which matched depth is drawn; the nearest that there is.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: The table has no such facet, or no point with such a size.
    """
    rows = _rows(table, facet)
    points = _points(rows, against)
    if points.empty:
        raise ValueError(f"Got {against!r} of facet {facet!r}, and the table has no point of it.")
    looks = _looks(points, depth)
    fits = rows[(rows["kind"] == "fit") & (rows["against"] == against)]
    with style.house_style():
        ax = style.new_axes(ax, (5.6, 4.2))
        ax.set_xscale("log")
        for place, (head, (colour, marker, line, _)) in enumerate(looks.items()):
            own = points[points["head"] == head]
            if head != "best":
                own = own[own["control"] == "trained"]
            # Side by side on the logarithmic axis, so that no head's bar hides another's.
            aside = 1.03 ** (place - (len(looks) - 1) / 2)
            for control, part in own.groupby("control"):
                x = part[against].astype(float) * aside
                face = colour if control == "trained" else "white"
                ax.vlines(x, part["ci_low"], part["ci_high"], color=colour, linewidth=1.2, alpha=0.8, zorder=2)
                ax.plot(x, part["value"], marker, color=colour, markerfacecolor=face, markersize=5.5, zorder=3)
            for fit in fits[(fits["head"] == head) & fits["control"].isin(own["control"])].to_dict("records"):
                inside = own[own["control"] == fit["control"]][against].astype(float)
                x = np.array([inside.min(), inside.max()])
                ax.plot(
                    x * aside,
                    fit["intercept"] + fit["value"] * np.log10(x),
                    color=colour,
                    linestyle=line,
                    linewidth=1.3,
                    alpha=0.9,
                    zorder=1,
                )
        style.reference_line(ax, 0.5, "chance", color=style.REFERENCE, linewidth=1.0)
        if pd.notna(ceiling := points["ceiling"].iloc[0]):
            style.reference_line(
                ax, ceiling, "annotators'\nceiling", color=style.CEILING, linewidth=1.2, linestyle=(0, (6, 2, 1, 2))
            )
        style.percent_axis(ax)
        there = sorted(points[against].astype(float).unique())
        if len(there) <= _MOST_TICKS:
            ax.set_xticks(there, [_count(x, "G" if against == "forward_flops" else "B") for x in there])
            ax.minorticks_off()
        else:
            # The default writes powers of ten as mathematics, which is off.
            ax.xaxis.set_major_formatter(lambda x, _: _count(x, "G" if against == "forward_flops" else "B"))
            ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel(AGAINST[against])
        ax.set_ylabel("pair accuracy")
        one = points.iloc[0]
        slope = fits[(fits["head"] == "best") & (fits["control"] == "trained")]
        said = "" if slope.empty else "\n" + _slope(slope.iloc[0])
        ax.set_title(f"{shown_name(facet)}: {say_series(one)}\n{say_counts(points)}{said}", fontsize=9)
        if legend:
            style.legend_below(ax, _handles(points, depth), columns=2)
    return ax


def _points(rows: pd.DataFrame, against: str) -> pd.DataFrame:
    points = rows[(rows["kind"] == "point") & rows[against].notna()]
    return over_training(points) if against == "steps" else points[points["finished"].astype(bool)]


def plot_paper(benchmark: str = "hpdv3", *, ax: Axes | None = None) -> Axes:
    """Draw what the paper and its relatives say of SD3.5-M and L on a benchmark, in grey, as theirs.

    Args:
        benchmark: Of :data:`probing.analysis.paper.BENCHMARKS`.
        ax: Axes to draw on; new ones if None.
    """
    marks = [one for one in published(benchmark=benchmark) if one.parameters is not None]
    with style.house_style():
        ax = style.new_axes(ax, (3.0, 4.2))
        ax.set_xscale("log")
        for one in marks:
            assert one.parameters is not None
            ax.plot(
                one.parameters,
                one.value,
                _PAPER_MARKS[str(one.training)],
                color=_PAPER,
                markersize=7,
                markerfacecolor=_PAPER if one.training == "trained" else "white",
            )
            right = one.parameters < 5e9
            ax.annotate(
                _say_paper(one),
                (one.parameters, one.value),
                xytext=(7 if right else -7, 0),
                textcoords="offset points",
                fontsize=7.5,
                color="#555555",
                va="center",
                ha="left" if right else "right",
            )
        ax.set_xlim(1.6e9, 1.25e10)
        low, high = min(one.value for one in marks), max(one.value for one in marks)
        ax.set_ylim(low - 0.02, high + 0.02)
        ax.set_xticks([2.5e9, 8.1e9], ["2.5B", "8.1B"])
        ax.minorticks_off()
        style.percent_axis(ax)
        ax.set_xlabel("parameters")
        ax.set_title(f"published, {benchmark}\nno intervals given", fontsize=9, color="#555555")
    return ax


def figure_scaling(table: pd.DataFrame) -> Figure:
    """Draw every facet (rows) against parameters and training steps (columns), and what is published below.

    Forward FLOPs rise as parameters do; :func:`plot_scaling` draws them.

    Args:
        table: Of :func:`probing.analysis.scaling.scaling`, or its CSV.
    """
    facets = sorted(table["facet"].unique())
    columns = [name for name in ("parameters", "steps") if len(_points(table, name))]
    with style.house_style():
        size = (max(4.4 * len(columns), 5.6), 3.1 * (len(facets) + 1) + 1.6)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(facets) + 1, len(columns), squeeze=False)
        for column, against in enumerate(columns):
            for row, facet in enumerate(facets):
                plot_scaling(table, facet=facet, against=against, ax=grid[row, column], legend=False)
            if column:
                grid[-1, column].axis("off")
        plot_paper(ax=grid[-1, 0])
        style.caption_and_legend(figure, CAPTION, _handles(table[table["kind"] == "point"], 0.5), columns=2)
        figure.suptitle("Does a larger backbone know more?", fontsize=12)
    return figure


def plot_depth_curves(
    table: pd.DataFrame, *, facet: str, stream: str = "image", ax: Axes | None = None, legend: bool = True
) -> Axes:
    """Draw a facet's reward curves of several models against relative depth, at each stream's lowest noise level.

    Args:
        table: Of :func:`probing.analysis.scaling.scaling`, or its CSV.
        facet: Which facet.
        stream: Which stream, in its first reduction.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: The table has no such cells.
    """
    cells = _finished_cells(table)
    cells = cells[(cells["facet"] == facet) & (cells["stream"] == stream)]
    if cells.empty:
        raise ValueError(f"Got facet {facet!r} in stream {stream!r}, and the table has no cells of it.")
    cells = cells[(cells["sigma"] == cells["sigma"].min()) & (cells["reduction"] == cells["reduction"].iloc[0])]
    looks = _model_looks(table)
    with style.house_style():
        ax = style.new_axes(ax, (5.6, 4.0))
        for (_, control), part in cells.groupby(["model", "control"], dropna=False, sort=False):
            part = part.sort_values("depth")
            colour, marker = looks[str(part["model"].iloc[0])]
            fresh = control != "trained"
            ax.fill_between(
                part["depth"], part["ci_low"], part["ci_high"], color=colour, alpha=0.08 if fresh else 0.15, linewidth=0
            )
            ax.plot(
                part["depth"],
                part["value"],
                color=colour,
                marker=marker,
                markersize=4,
                linestyle=(0, (4, 2)) if fresh else "-",
                linewidth=1.2 if fresh else 1.7,
                markerfacecolor="white" if fresh else colour,
            )
        style.reference_line(ax, 0.5, "chance", color=style.REFERENCE, linewidth=1.0)
        if pd.notna(ceiling := cells["ceiling"].iloc[0]):
            style.reference_line(
                ax, ceiling, "annotators'\nceiling", color=style.CEILING, linewidth=1.2, linestyle=(0, (6, 2, 1, 2))
            )
        ax.set_xlim(0, 1.03)
        ax.set_xlabel("depth (0: input, 1: last block)")
        ax.set_ylabel("pair accuracy")
        style.percent_axis(ax)
        one = cells.iloc[0]
        ax.set_title(f"{shown_name(facet)}: {say_series(one)}\n{say_counts(cells)}", fontsize=9.5)
        if legend:
            style.legend_below(ax, _model_handles(table), columns=2)
    return ax


def figure_depth_curves(table: pd.DataFrame) -> Figure:
    """Draw every facet (rows) in every stream (columns), a curve a finished model.

    Args:
        table: Of :func:`probing.analysis.scaling.scaling`, or its CSV.
    """
    cells = table[table["kind"] == "cell"]
    facets = sorted(cells["facet"].unique())
    streams = sorted(cells["stream"].unique(), key=lambda stream: (stream != "image", stream))
    with style.house_style():
        size = (max(3.8 * len(streams), 5.6), 3.0 * len(facets) + 1.6)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(facets), len(streams), squeeze=False, sharex=True, sharey="row")
        for row, facet in enumerate(facets):
            for column, stream in enumerate(streams):
                ax = plot_depth_curves(table, facet=facet, stream=stream, ax=grid[row, column], legend=False)
                ax.label_outer()
        handles = _model_handles(table)
        # A narrow figure has no room for two names side by side.
        style.caption_and_legend(figure, DEPTH_CAPTION, handles, columns=1 if figure.get_figwidth() < 8 else 2)
        figure.suptitle("Reward curves by relative depth", fontsize=12)
    return figure


def _rows(table: pd.DataFrame, facet: str) -> pd.DataFrame:
    rows = table[table["facet"] == facet]
    best = rows[(rows["kind"] == "point") & (rows["head"] == "best") & (rows["control"] == "trained")]
    if best.empty:
        raise NothingToDraw(f"got facet {facet!r}, and the table has no trained model's best block of it.")
    means = best.groupby(SERIES)["cv_accuracy"].mean().reset_index()
    return best_series(rows, means)


def _looks(points: pd.DataFrame, depth: float) -> dict[str, tuple]:
    """How each head is drawn; of the matched depths one is."""
    there = [head for head in points["head"].unique() if str(head).startswith("depth ")]
    looks: dict[str, tuple] = {head: look for head, look in _HEADS.items() if head in set(points["head"])}
    if there:
        nearest = min(there, key=lambda head: abs(float(head.split()[1]) - depth))
        looks[nearest] = (*_DEPTH, f"block at {nearest}")
    return looks


def _handles(points: pd.DataFrame, depth: float) -> list[Line2D]:
    return [
        Line2D([], [], color=colour, marker=marker, linestyle=line, label=said)
        for colour, marker, line, said in _looks(points, depth).values()
    ]


def _slope(fit: pd.Series) -> str:
    value, low, high = (100 * fit[name] for name in ("value", "ci_low", "ci_high"))
    return f"best block: {value:+.1f} points a tenfold\n[{low:+.1f}, {high:+.1f}] over prompts" + (
        f", [{100 * fit['models_low']:+.1f}, {100 * fit['models_high']:+.1f}] over {fit['n_models']:.0f} models"
        if fit["n_models"] > 2
        else f", {fit['n_models']:.0f} models"
    )


def _say_paper(one: Published) -> str:
    return f"{one.model.split(' SD')[0]}, {one.training}"


def _finished_cells(table: pd.DataFrame) -> pd.DataFrame:
    """The cells of models that stand for their size, not of checkpoints on the way there."""
    points = table[(table["kind"] == "point") & (table["head"] == "best")]
    standing = set(points.loc[points["finished"].astype(bool), "model"])
    return table[(table["kind"] == "cell") & table["model"].isin(standing)]


def _model_looks(table: pd.DataFrame) -> dict[str, tuple[str, str]]:
    cells = _finished_cells(table).drop_duplicates("model").sort_values("parameters")
    colours = style.sigma_looks(list(range(len(cells))))
    return {str(model): colours[place] for place, model in enumerate(cells["model"])}


def _model_handles(table: pd.DataFrame) -> list[Line2D]:
    sizes = _finished_cells(table).drop_duplicates("model").set_index("model")["parameters"]
    return [
        Line2D(
            [], [], color=colour, marker=marker, label=f"{shown_name(model)} ({_count(float(sizes[model]))} parameters)"
        )
        for model, (colour, marker) in _model_looks(table).items()
    ]


def _count(number: float, giga: str = "B") -> str:
    for size, unit in ((1e12, "T"), (1e9, giga), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"
