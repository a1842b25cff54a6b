"""Every control beside the trained backbone, on one page."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probing.plots import style
from probing.plots.series import say_counts
from probing.plots.text import shown_name, shown_names
from probing.statistics import LEVEL

CAPTION = (
    "Each row: the best of its own cells, chosen on training pairs; accuracy on the same test pairs. Bars: 95% cluster "
    "bootstrap over prompts. At the right: the trained backbone minus the row, in points, with its paired interval; "
    "bold where p ≤ 0.05 after Holm's correction."
)
_KINDS = {
    "trained": ("#0072B2", "o", "trained"),
    "part": ("#56B4E9", "P", "one stream of it"),
    "control": (style.RANDOM_INIT, "s", "control"),
    "shortcut": (style.LATENTS, "D", "shortcut without a backbone"),
}
_NAMES = {
    "trained": "trained, best cell",
    "image stream": "image tokens alone",
    "text stream": "text tokens alone",
    "foreign prompt": "another prompt's words",
    "empty prompt": "no words",
    "random-init": "random-initialised",
    "latents": "pooled VAE latents",
    "image stats": "image statistics",
    "size": "size of the pictures",
    "source model": "name of the painter",
    "shuffled": "shuffled choices",
}


def plot_controls(table: pd.DataFrame, *, facet: str, ax: Axes | None = None, legend: bool = True) -> Axes:
    """Draw a facet's controls as rows, with chance, the ceiling and the trained backbone as lines.

    Args:
        table: Of :func:`probing.analysis.controls.controls`, or its CSV.
        facet: Which facet.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: The table has no such facet.
    """
    rows = table[table["facet"] == facet]
    if rows.empty:
        raise ValueError(f"Got facet {facet!r}, expected one of {', '.join(sorted(table['facet'].unique()))}.")
    trained = rows[rows["control"] == "trained"].iloc[0]
    with style.house_style():
        ax = style.new_axes(ax, (6.6, 1.5 + 0.36 * len(rows)))
        ax.axvline(0.5, color=style.REFERENCE, linewidth=1.0, zorder=1)
        ax.axvspan(trained["ci_low"], trained["ci_high"], color=_KINDS["trained"][0], alpha=0.10, linewidth=0, zorder=0)
        top = 0.62
        _name_line(ax, 0.5, "chance", style.REFERENCE, top)
        if pd.notna(trained["ceiling"]):
            ax.axvline(trained["ceiling"], color=style.CEILING, linewidth=1.2, linestyle=(0, (6, 2, 1, 2)), zorder=1)
            _name_line(ax, trained["ceiling"], "annotators' ceiling", style.CEILING, top)
        for place, row in enumerate(rows.to_dict("records")):
            colour, marker, _ = _KINDS[row["kind"]]
            ax.plot([row["ci_low"], row["ci_high"]], [-place, -place], color=colour, linewidth=1.8, zorder=2)
            ax.plot(row["value"], -place, marker, color=colour, markersize=6, zorder=3)
            if pd.notna(row["difference"]):
                value, low, high = (100 * row[f"difference{end}"] for end in ("", "_low", "_high"))
                said = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
                weight = "bold" if row["difference_p_value_holm"] <= LEVEL else "normal"
                ax.annotate(
                    said,
                    (1.0, -place),
                    xycoords=("axes fraction", "data"),
                    xytext=(5, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                    fontweight=weight,
                    annotation_clip=False,
                )
        ax.set_yticks(range(0, -len(rows), -1), [_NAMES.get(name, name) for name in rows["control"]], fontsize=9)
        ax.set_ylim(-len(rows) + 0.4, top)
        ax.xaxis.set_major_formatter(style.percent())
        ax.set_xlabel("pair accuracy")
        ax.set_title(f"{shown_name(facet)}: {trained['place']}\n{say_counts(rows)}", fontsize=10, pad=16)
        if legend:
            style.legend_below(ax, _handles(rows), columns=2)
    return ax


def figure_controls(table: pd.DataFrame) -> Figure:
    """Draw every facet's page of controls, one below the other, with one legend and a caption.

    Args:
        table: Of :func:`probing.analysis.controls.controls`, or its CSV.
    """
    facets = sorted(table["facet"].unique())
    most = int(table.groupby("facet").size().max())
    with style.house_style():
        figure = Figure(figsize=(8.0, (1.25 + 0.32 * most) * len(facets) + 1.5), layout="constrained")
        rows = figure.subplots(len(facets), 1, squeeze=False, sharex=True)[:, 0]
        for ax, facet in zip(rows, facets, strict=True):
            plot_controls(table, facet=facet, ax=ax, legend=False)
        style.caption_and_legend(figure, CAPTION, _handles(table), columns=4)
        models = shown_names(table["model"])
        figure.suptitle(f"What is left of {models or 'the backbone'} without what it has", fontsize=12)
    return figure


def _name_line(ax: Axes, x: float, name: str, colour: str, top: float) -> None:
    ax.annotate(
        name,
        (x, top),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=8.5,
        color=colour,
        annotation_clip=False,
    )


def _handles(table: pd.DataFrame) -> list[Line2D]:
    return [
        Line2D([], [], color=colour, marker=marker, label=said)
        for kind, (colour, marker, said) in _KINDS.items()
        if kind in set(table["kind"])
    ]
