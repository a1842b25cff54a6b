"""Every control and the trained backbone, a row each."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probing.plots import style
from probing.plots.curves import describe_models, facet_rows, facets_in, panel_title
from probing.plots.grid import facet_grid
from probing.result_tables import DECIDED

CAPTION = (
    "Each row: the best of its cells, chosen on training pairs; accuracy on the same test pairs. Bars: 95% over "
    "prompts; thin: range of single draws of weights or shuffles. At the right: the trained backbone minus the row, "
    "in points, with its paired interval; bold where p ≤ 0.05 after Holm's correction."
)
_STYLES = {
    "trained": style.Style(style.TRAINED, "o", "trained"),
    "part": style.Style("#56B4E9", "P", "one stream of it"),
    "control": style.Style(style.RANDOM_INIT, "s", "control"),
    "shortcut": style.Style(style.LATENTS, "D", "shortcut without a backbone"),
}
_NAMES = {
    "trained": "trained, best cell",
    "image stream": "image tokens alone",
    "text stream": "text tokens alone",
    "foreign prompt": "another prompt",
    "empty prompt": "empty prompt",
    "random-init": "random-initialised",
    "latents": "pooled VAE latents",
    "image stats": "image statistics",
    "size": "image size",
    "source model": "name of the source model",
    "shuffled": "shuffled choices",
}
_TOP = 0.62


def plot_controls(table: pd.DataFrame, *, facet: str, ax: Axes | None = None, legend: bool = True) -> Axes:
    """Draw a facet's controls as rows, with chance and the ceiling as lines, the trained interval as a band.

    Args:
        table: Result of :func:`probing.analysis.controls.controls`, or its CSV.
        facet: Which facet.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: The table has no such facet.
    """
    rows = facet_rows(table, facet)
    trained = rows[rows["control"] == "trained"].iloc[0]
    with style.house_style():
        ax = style.new_axes(ax, (6.6, 1.5 + 0.36 * len(rows)))
        style.vertical_line(ax, 0.5, "chance", _TOP)
        ax.axvspan(trained["ci_low"], trained["ci_high"], color=style.TRAINED, alpha=0.10, linewidth=0, zorder=0)
        style.ceiling_line(ax, trained["ceiling"], _TOP)
        for number, row in enumerate(rows.to_dict("records")):
            if pd.notna(row["draws"]) and row["draws"] > 1:
                ax.plot([row["draw_low"], row["draw_high"]], [-number] * 2, color="#BBBBBB", linewidth=0.9, zorder=1)
            style.draw_interval(ax, -number, (row["value"], row["ci_low"], row["ci_high"]), _STYLES[row["kind"]])
            if pd.notna(row["difference"]):
                value, low, high = (100 * row[f"difference{end}"] for end in ("", "_low", "_high"))
                text, decided = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]", row["difference_verdict"] in DECIDED
                style.note_beside(ax, -number, text, bold=decided)
        ax.set_yticks(range(0, -len(rows), -1), [_NAMES.get(name, name) for name in rows["control"]], fontsize=9)
        ax.set_ylim(-len(rows) + 0.4, _TOP)
        ax.xaxis.set_major_formatter(style.percent())
        ax.set_xlabel("pair accuracy")
        ax.set_title(panel_title(facet, trained["site"], rows), fontsize=10, pad=16)
        if legend:
            style.legend_below(ax, style.handles_of(_STYLES, set(rows["kind"])), columns=2)
    return ax


def figure_controls(table: pd.DataFrame) -> Figure:
    """Draw every facet's controls, one below the other, with one legend and a caption.

    Args:
        table: Result of :func:`probing.analysis.controls.controls`, or its CSV.
    """
    facets = facets_in(table)
    most = int(table.groupby("facet").size().max())
    with facet_grid(
        len(facets),
        1,
        (8.0, (1.25 + 0.32 * most) * len(facets) + 1.5),
        title=f"Controls of {describe_models(table)}",
        caption=CAPTION,
        handles=style.handles_of(_STYLES, set(table["kind"])),
        legend_columns=4,
        sharex=True,
    ) as (figure, grid):
        for ax, facet in zip(grid[:, 0], facets, strict=True):
            plot_controls(table, facet=facet, ax=ax, legend=False)
    return figure
