"""Accuracy against size and training, and against relative depth; published values in a panel of their own."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from probing.plots import style
from probing.plots.curves import CURVE, NothingToDraw, best_curve, describe_curve, facets_in, panel_title
from probing.plots.grid import facet_grid
from probing.plots.text import shown_name
from probing.result_tables import measured_rows, over_training, published_rows

CAPTION = (
    "One head recipe for all models. Points: accuracy on test pairs; bars: 95% over prompts. Lines: least squares on "
    "the logarithm, through the mean of each size; slopes with intervals over the same prompts, and, of three sizes "
    "or more, over sizes (Student's t, not corrected). Hollow: the best block of random-initialised models. A facet's "
    "stream and noise level are the best on training pairs, over all trained models."
)
_PUBLISHED = " In grey, in their own panel: published values of other models."
DEPTH_CAPTION = (
    "Bands: 95% over prompts. Points: accuracies of single blocks on test pairs. Dashed and hollow: "
    "random-initialised. All at the lowest noise level; of checkpoints the last."
)
AGAINST = {"parameters": "parameters", "forward_flops": "FLOPs of one forward", "steps": "training steps"}
_STYLES = {
    "best": style.Style("#0072B2", "o", "best block"),
    "best-matched": style.Style("#D55E00", "D", "best block at the narrowest width", (0, (1, 1.5))),
    "stages": style.Style("#009E73", "s", "a block of every stage", (0, (5, 2))),
}
_DEPTH = style.Style("#CC79A7", "^", line=(0, (3, 1, 1, 1)))
_MAX_TICKS = 6
_PUBLISHED_MARKERS = {"trained": "P", "frozen": "o", "random-init": "x"}


def plot_scaling(
    table: pd.DataFrame,
    *,
    facet: str,
    against: str = "parameters",
    depth: float = 0.5,
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw a facet's accuracies against one measure of size, in the curve that is best on training pairs.

    Args:
        table: Result of :func:`probing.analysis.scaling.scaling`, or its CSV.
        facet: Which facet.
        against: ``parameters``, ``forward_flops`` or ``steps``.
        depth: Which matched depth is drawn; the nearest in the table.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: The table has no such facet, or no point with such a size.
    """
    rows = _curve_of(table, facet)
    points = _points(rows, against)
    if points.empty:
        raise ValueError(f"Got {against!r} of facet {facet!r}, and the table has no point of it.")
    styles = _point_styles(points, depth)
    fits = rows[(rows["kind"] == "fit") & (rows["against"] == against)]
    with style.house_style():
        ax = style.new_axes(ax, (5.6, 4.2))
        ax.set_xscale("log")
        for number, ((head, pipeline), one) in enumerate(styles.items()):
            of_head = points[points["head"] == head]
            if pipeline is not None:
                of_head = of_head[of_head["pipeline"] == pipeline]
            if head != "best":
                of_head = of_head[of_head["control"] == "trained"]
            # Side by side on the logarithmic axis, so that no head's bar hides another's.
            offset = 1.03 ** (number - (len(styles) - 1) / 2)
            for control, part in of_head.groupby("control"):
                x = part[against].astype(float) * offset
                face = one.colour if control == "trained" else "white"
                ax.vlines(x, part["ci_low"], part["ci_high"], color=one.colour, linewidth=1.2, alpha=0.8, zorder=2)
                ax.plot(x, part["value"], one.marker, color=one.colour, markerfacecolor=face, markersize=5.5, zorder=3)
                series = control if pipeline is None else f"{control}, {pipeline}"
                lines = fits[(fits["head"] == head) & (fits["series"].eq(series) | (fits["against"] == "steps"))]
                for fit in lines.to_dict("records"):
                    ends = np.array([part[against].min(), part[against].max()], dtype=float)
                    y = fit["intercept"] + fit["value"] * np.log10(ends)
                    ax.plot(ends * offset, y, color=one.colour, linestyle=one.line, linewidth=1.3, alpha=0.9, zorder=1)
        style.accuracy_axis(ax, points["ceiling"].iloc[0])
        _size_axis(ax, sorted(points[against].astype(float).unique()), "G" if against == "forward_flops" else "B")
        ax.set_xlabel(AGAINST[against])
        slopes = fits[fits["series"].eq("trained") | (fits["against"] == "steps")]
        statement = "".join(
            f"\n{label}: {_describe_slope(slope)}"
            for head, label in (("best", "best block"), ("best-matched", "narrowed"))
            for _, slope in slopes[slopes["head"] == head].head(1).iterrows()
        )
        ax.set_title(panel_title(facet, describe_curve(points.iloc[0]), points) + statement, fontsize=8)
        if legend:
            style.legend_below(ax, style.handles_of(styles), columns=2)
    return ax


def plot_published(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the published accuracies of a table against parameters, in grey.

    Args:
        table: As for :func:`plot_scaling`.
        ax: Axes to draw on; new ones if None.

    Raises:
        NothingToDraw: The table has none.
    """
    rows = published_rows(table)
    if rows.empty:
        raise NothingToDraw("the table has no published values.")
    with style.house_style():
        ax = style.new_axes(ax, (3.0, 4.2))
        ax.set_xscale("log")
        for row in rows.to_dict("records"):
            ax.plot(
                row["parameters"],
                row["value"],
                _PUBLISHED_MARKERS[row["series"]],
                color=style.PUBLISHED,
                markersize=7,
                markerfacecolor=style.PUBLISHED if row["series"] == "trained" else "white",
            )
            right = row["parameters"] < 5e9
            ax.annotate(
                f"{row['model'].split(' SD')[0]}, {row['series']}",
                (row["parameters"], row["value"]),
                xytext=(7 if right else -7, 0),
                textcoords="offset points",
                fontsize=7.5,
                color="#555555",
                va="center",
                ha="left" if right else "right",
            )
        ax.set_xlim(1.6e9, 1.25e10)
        ax.set_ylim(rows["value"].min() - 0.02, rows["value"].max() + 0.02)
        _size_axis(ax, sorted(rows["parameters"].unique()), "B")
        ax.yaxis.set_major_formatter(style.percent())
        ax.set_xlabel("parameters")
        ax.set_title(f"published, {rows['data'].iloc[0]}\nno intervals given", fontsize=9, color="#555555")
    return ax


def figure_scaling(table: pd.DataFrame) -> Figure:
    """Draw every facet (rows) against parameters and training steps (columns), and published values below.

    Forward FLOPs rise as parameters do; :func:`plot_scaling` draws them.

    Args:
        table: Result of :func:`probing.analysis.scaling.scaling`, or its CSV.
    """
    measured, published = measured_rows(table), len(published_rows(table)) > 0
    facets = facets_in(measured)
    columns = [name for name in ("parameters", "steps") if len(_points(measured, name))]
    points = measured[measured["kind"] == "point"]
    with facet_grid(
        len(facets) + published,
        len(columns),
        (max(4.4 * len(columns), 5.6), 3.1 * (len(facets) + published) + 1.6),
        title="Accuracy by size and training",
        caption=CAPTION + (_PUBLISHED if published else ""),
        handles=style.handles_of(_point_styles(points, 0.5)),
        legend_columns=2,
    ) as (figure, grid):
        for (row, facet), (column, against) in product(enumerate(facets), enumerate(columns)):
            plot_scaling(measured, facet=facet, against=against, ax=grid[row, column], legend=False)
        if published:
            plot_published(table, ax=grid[-1, 0])
    return figure


def plot_depth_curves(
    table: pd.DataFrame, *, facet: str, stream: str = "image", ax: Axes | None = None, legend: bool = True
) -> Axes:
    """Draw a facet's reward curves of several models against relative depth, at each stream's lowest noise level.

    Args:
        table: Result of :func:`probing.analysis.scaling.scaling`, or its CSV.
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
    styles = _model_styles(table)
    with style.house_style():
        ax = style.new_axes(ax, (5.6, 4.0))
        for (model, control), part in cells.groupby(["model", "control"], dropna=False, sort=False):
            part = part.sort_values("depth")
            hollow = control != "trained"
            style.draw_band(
                ax,
                part["depth"],
                part,
                styles[model],
                hollow=hollow,
                alpha=0.08 if hollow else 0.15,
                linewidth=1.2 if hollow else 1.7,
                markersize=4,
            )
        style.accuracy_axis(ax, cells["ceiling"].iloc[0])
        ax.set_xlim(0, 1.03)
        ax.set_xlabel("depth (0: input, 1: last block)")
        ax.set_title(panel_title(facet, describe_curve(cells.iloc[0]), cells), fontsize=9.5)
        if legend:
            style.legend_below(ax, style.handles_of(styles), columns=2)
    return ax


def figure_depth_curves(table: pd.DataFrame) -> Figure:
    """Draw every facet (rows) in every stream (columns), a curve a finished model.

    Args:
        table: Result of :func:`probing.analysis.scaling.scaling`, or its CSV.
    """
    cells = table[table["kind"] == "cell"]
    facets = facets_in(cells)
    streams = sorted(cells["stream"].unique(), key=lambda stream: (stream != "image", stream))
    width = max(3.8 * len(streams), 5.6)
    with facet_grid(
        len(facets),
        len(streams),
        (width, 3.0 * len(facets) + 1.6),
        title="Reward curves by relative depth",
        caption=DEPTH_CAPTION,
        handles=style.handles_of(_model_styles(table)),
        # A narrow figure has no room for two names side by side.
        legend_columns=1 if width < 8 else 2,
        outer_labels=True,
        sharex=True,
        sharey="row",
    ) as (figure, grid):
        for (row, facet), (column, stream) in product(enumerate(facets), enumerate(streams)):
            plot_depth_curves(table, facet=facet, stream=stream, ax=grid[row, column], legend=False)
    return figure


def _points(rows: pd.DataFrame, against: str) -> pd.DataFrame:
    points = rows[(rows["kind"] == "point") & rows[against].notna()]
    return over_training(points) if against == "steps" else points[points["finished"].astype(bool)]


def _curve_of(table: pd.DataFrame, facet: str) -> pd.DataFrame:
    rows = table[table["facet"] == facet]
    best = rows[(rows["kind"] == "point") & (rows["head"] == "best") & (rows["control"] == "trained")]
    if best.empty:
        raise NothingToDraw(f"got facet {facet!r}, and the table has no trained model's best block of it.")
    return best_curve(rows, best.groupby(CURVE)["cv_accuracy"].mean().reset_index())


def _head_styles(points: pd.DataFrame, depth: float) -> dict[str, style.Style]:
    """Choose the heads to draw, and the matched depth nearest to ``depth``."""
    heads = list(points["head"].unique())
    styles = {head: one for head, one in _STYLES.items() if head in heads}
    if depths := [head for head in heads if str(head).startswith("depth ")]:
        nearest = min(depths, key=lambda head: abs(float(head.split()[1]) - depth))
        styles[nearest] = _DEPTH._replace(label=f"block at {nearest}")
    return styles


def _point_styles(points: pd.DataFrame, depth: float) -> dict[tuple[str, str | None], style.Style]:
    """Choose what is drawn: several heads of one family of models, or the best block of each of several families."""
    families = sorted(points["pipeline"].dropna().unique()) if "pipeline" in points else []
    if len(families) < 2:
        return {(head, None): one for head, one in _head_styles(points, depth).items()}
    colours = style.sigma_styles(list(range(len(families))))
    return {
        ("best", family): colours[number]._replace(label=f"best block, {family.removesuffix('Pipeline')}")
        for number, family in enumerate(families)
    }


def _size_axis(ax: Axes, sizes: list[float], giga: str) -> None:
    """Mark sizes on the logarithmic axis: each of them if they are few."""
    if len(sizes) <= _MAX_TICKS:
        ax.set_xticks(sizes, [_format_count(size, giga) for size in sizes])
        ax.minorticks_off()
    else:
        # The default writes powers of ten as mathematics, which is off.
        ax.xaxis.set_major_formatter(lambda size, _: _format_count(size, giga))
        ax.xaxis.set_minor_formatter(NullFormatter())


def _describe_slope(fit: pd.Series) -> str:
    value, low, high = (100 * fit[name] for name in ("value", "ci_low", "ci_high"))
    described = f"{value:+.1f} points a tenfold [{low:+.1f}, {high:+.1f}]"
    if pd.notna(fit["sizes_low"]):
        described += f", sizes [{100 * fit['sizes_low']:+.1f}, {100 * fit['sizes_high']:+.1f}]"
    return described


def _finished_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Select the cells of models whose training is finished, not of checkpoints before its end."""
    points = table[(table["kind"] == "point") & (table["head"] == "best")]
    finished = points.loc[points["finished"].astype(bool), "model"]
    return table[(table["kind"] == "cell") & table["model"].isin(finished)]


def _model_styles(table: pd.DataFrame) -> dict[str, style.Style]:
    models = _finished_cells(table).drop_duplicates("model").sort_values("parameters")
    styles = style.sigma_styles(list(range(len(models))))
    return {
        row["model"]: styles[number]._replace(
            label=f"{shown_name(row['model'])} ({_format_count(row['parameters'])} parameters)"
        )
        for number, row in enumerate(models.to_dict("records"))
    }


def _format_count(number: float, giga: str = "B") -> str:
    for size, unit in ((1e12, "T"), (1e9, giga), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"
