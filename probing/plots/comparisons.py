"""Forest plots: the best trained cell minus the best of each control."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probing.plots import style
from probing.plots.series import say_counts
from probing.plots.text import shown_name
from probing.statistics import LEVEL

CAPTION = (
    "Accuracy of the trained backbone's best block minus that of the control's best, both chosen by cross-validation "
    "on training pairs. Bars: 95% paired cluster bootstrap over prompts. Filled: p ≤ 0.05 after Holm's correction."
)
_REFERENCES = " Another reward is taken as it is."
_LOOKS = {
    "random-init": (style.RANDOM_INIT, "o", "minus random-initialised"),
    "latents": (style.LATENTS, "s", "minus pooled latents"),
    "reference": ("#CC79A7", "D", "minus another reward"),
}


def plot_comparisons(
    table: pd.DataFrame, *, facet: str | None = None, ax: Axes | None = None, legend: bool = True
) -> Axes:
    """Draw differences with their intervals and a line at zero, a row a stream and noise level, and one a reference.

    Args:
        table: Of :func:`probing.analysis.compare`, or its CSV.
        facet: Which facet; all of them, named in the rows, if None.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: The table has no such facet.
    """
    rows = table if facet is None else table[table["facet"] == facet]
    if rows.empty:
        raise ValueError(f"Got facet {facet!r}, expected one of {', '.join(sorted(table['facet'].unique()))}.")
    labels = [_label(row, with_facet=facet is None) for row in rows.to_dict("records")]
    places = {label: -place for place, label in enumerate(dict.fromkeys(labels))}
    baselines = [name for name in _LOOKS if name in set(rows["baseline"])]
    # Controls share a row; another reward has its own.
    controls = [name for name in baselines if name != "reference"]
    beside = {name: 0.26 * ((len(controls) - 1) / 2 - place) for place, name in enumerate(controls)}
    with style.house_style():
        ax = style.new_axes(ax, (6.4, 1.6 + 0.42 * len(places)))
        ax.axvline(0, color=style.REFERENCE, linewidth=1.0, zorder=1)
        for row, label in zip(rows.to_dict("records"), labels, strict=True):
            colour, marker, _ = _LOOKS[row["baseline"]]
            y = places[label] + beside.get(row["baseline"], 0.0)
            ax.plot([100 * row["ci_low"], 100 * row["ci_high"]], [y, y], color=colour, linewidth=1.8, zorder=2)
            filled = row["p_value_holm"] <= LEVEL
            ax.plot(
                100 * row["difference"],
                y,
                marker,
                color=colour,
                markerfacecolor=colour if filled else "white",
                markersize=6,
                zorder=3,
            )
        ax.set_yticks(list(places.values()), list(places))
        ax.set_ylim(min(places.values()) - 0.6, 0.6)
        ax.set_xlabel("difference (percentage points)")
        ax.set_title(_title(rows, facet), fontsize=10)
        if legend:
            style.legend_below(ax, _handles(baselines), columns=2)
    return ax


def figure_comparisons(table: pd.DataFrame) -> Figure:
    """Draw every facet, two in a row, with one legend and a caption.

    Args:
        table: Of :func:`probing.analysis.compare`, or its CSV.
    """
    facets = sorted(table["facet"].unique())
    lines = max(
        len({_label(row, with_facet=False) for row in part.to_dict("records")}) for _, part in table.groupby("facet")
    )
    with style.house_style():
        across = min(len(facets), 2)
        down = -(-len(facets) // across)
        size = (max(3.9 * across + 1.0, 6.0), (0.36 * lines + 0.9) * down + 1.3)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(down, across, squeeze=False, sharex=True)
        for number, facet in enumerate(facets):
            ax = plot_comparisons(table, facet=facet, ax=grid.flat[number], legend=False)
            same = number % across and _rows_of(ax) == _rows_of(grid.flat[number - 1])
            if same:
                ax.set_yticklabels([])
            if number < len(facets) - across:
                ax.set_xlabel("")
        for ax in grid.flat[len(facets) :]:
            ax.axis("off")
        baselines = [name for name in _LOOKS if name in set(table["baseline"])]
        caption = CAPTION + (_REFERENCES if "reference" in baselines else "")
        style.caption_and_legend(figure, caption, _handles(baselines), columns=len(baselines))
        figure.suptitle("Is the trained backbone better than its controls?", fontsize=12)
    return figure


def _rows_of(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def _label(row: dict, *, with_facet: bool) -> str:
    what = "best σ and stream" if row["scope"] == "overall" else f"{row['stream']}, σ = {row['sigma']:g}"
    if row["baseline"] == "reference":
        what = f"beside {shown_name(row['baseline_chosen'])}"
    return f"{shown_name(row['facet'])}: {what}" if with_facet else what


def _title(rows: pd.DataFrame, facet: str | None) -> str:
    return say_counts(rows) if facet is None else f"{shown_name(facet)}\n{say_counts(rows)}"


def _handles(baselines: list[str]) -> list[Line2D]:
    return [
        Line2D([], [], color=colour, marker=marker, label=said)
        for colour, marker, said in (_LOOKS[name] for name in baselines)
    ]
