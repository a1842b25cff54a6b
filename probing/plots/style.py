"""The one style of all figures; colours are Okabe and Ito's, safe for colour-blind readers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import ScaledTranslation

from probing.plots.text import plain_text

TRAINED = "#0072B2"
LATENTS = "#D55E00"
RANDOM_INIT = "#767676"
SHUFFLED = "#9A9A9A"
REFERENCE = "#222222"
CEILING = "#0072B2"
PUBLISHED = "#8A8A8A"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHED: Any = (0, (4, 2))
_CEILING_LINE: Any = (0, (6, 2, 1, 2))

_RC: dict[Any, Any] = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.7,
    "lines.markersize": 5,
    "pdf.fonttype": 42,
    "svg.hashsalt": "probing",
}


class Style(NamedTuple):
    """How one kind of row is drawn: colour, marker, its entry in the legend, and the line between points."""

    colour: str
    marker: str
    label: str = ""
    line: Any = "-"


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in the house style and leave the global one unchanged."""
    with mpl.rc_context({**_RC, **plain_text()}):
        yield


def new_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Return the axes, or new ones on a figure of ``size`` inches."""
    return Figure(figsize=size, layout="constrained").subplots() if ax is None else ax


def sigma_styles(sigmas: Sequence[float]) -> dict[Any, Style]:
    """Give each noise level a colour from dark (clean) to light (noisy), and a marker."""
    ordered = sorted(set(sigmas))
    shades = mpl.colormaps["viridis"](np.linspace(0.05, 0.78, max(len(ordered), 2)))
    return {
        sigma: Style(to_hex(shades[i]), MARKERS[i % len(MARKERS)], f"σ = {sigma:g}") for i, sigma in enumerate(ordered)
    }


def block_axis(ax: Axes, num_blocks: int | None = None) -> None:
    """Label the horizontal axis by block, with integer ticks, and by depth above if ``num_blocks`` is given."""
    ax.set_xlabel("block (its output)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9, min_n_ticks=1))
    if num_blocks is None:
        return

    def depth_of(block: Any) -> Any:
        return (block + 1) / num_blocks

    def block_at(depth: Any) -> Any:
        return depth * num_blocks - 1

    above = ax.secondary_xaxis("top", functions=(depth_of, block_at))
    above.set_xlabel("depth", fontsize=9, color="#555555")
    above.set_xticks([0.25, 0.5, 0.75, 1.0])
    above.tick_params(labelsize=8, color="#999999", labelcolor="#555555", length=2)
    above.spines["top"].set_color("#999999")


def percent() -> PercentFormatter:
    """Format shares as whole percents."""
    return PercentFormatter(1.0, decimals=0, symbol="%")


def accuracy_axis(ax: Axes, ceiling: float) -> None:
    """Label the vertical axis by accuracy, with chance and the annotators' ceiling (NaN: unknown) as lines."""
    reference_line(ax, 0.5, "chance", color=REFERENCE, linewidth=1.0)
    if pd.notna(ceiling):
        reference_line(ax, ceiling, "annotators'\nceiling", color=CEILING, linewidth=1.2, linestyle=_CEILING_LINE)
    ax.yaxis.set_major_formatter(percent())
    ax.set_ylabel("pair accuracy")


def reference_line(ax: Axes, value: float, label: str, **line: Any) -> None:
    """Draw a horizontal line, named to the right of the axes, where no data are."""
    ax.axhline(value, zorder=1, **line)
    ax.annotate(
        label,
        (1.0, value),
        xycoords=("axes fraction", "data"),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        color=line.get("color", REFERENCE),
        annotation_clip=False,
    )


def vertical_line(ax: Axes, value: float, label: str = "", top: float = 0.0, **line: Any) -> None:
    """Draw a vertical line, named above the height ``top``."""
    options: dict[str, Any] = {"color": REFERENCE, "linewidth": 1.0} | line
    ax.axvline(value, zorder=1, **options)
    if label:
        ax.annotate(
            label,
            (value, top),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8.5,
            color=options["color"],
            annotation_clip=False,
        )


def ceiling_line(ax: Axes, value: float, top: float) -> None:
    """Draw the annotators' ceiling as a vertical line; none if it is unknown (NaN)."""
    if pd.notna(value):
        vertical_line(ax, value, "annotators' ceiling", top, color=CEILING, linewidth=1.2, linestyle=_CEILING_LINE)


def draw_band(ax: Axes, x: Any, rows: pd.DataFrame, style: Style, *, hollow: bool, alpha: float, **line: Any) -> None:
    """Draw values as a curve over the band of their intervals; hollow and dashed for a control."""
    ax.fill_between(x, rows["ci_low"], rows["ci_high"], color=style.colour, alpha=alpha, linewidth=0)
    ax.plot(
        x,
        rows["value"],
        color=style.colour,
        marker=style.marker,
        markerfacecolor="white" if hollow else style.colour,
        linestyle=DASHED if hollow else style.line,
        **line,
    )


def draw_interval(ax: Axes, y: float, values: tuple[float, float, float], style: Style, *, filled: bool = True) -> None:
    """Draw a point with its interval (value, low, high) at height ``y``."""
    value, low, high = values
    ax.plot([low, high], [y, y], color=style.colour, linewidth=1.8, zorder=2)
    face = style.colour if filled else "white"
    ax.plot(value, y, style.marker, color=style.colour, markerfacecolor=face, markersize=6, zorder=3)


def note_beside(ax: Axes, y: float, text: str, *, bold: bool) -> None:
    """Write a row's numbers at the right of the axes, bold where they are decided."""
    ax.annotate(
        text,
        (1.0, y),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        fontweight="bold" if bold else "normal",
        annotation_clip=False,
    )


def handles_of(styles: Mapping[Any, Style], present: Collection[Any] | None = None, **line: Any) -> list[Line2D]:
    """Make the legend of the styles, of those whose key is present if ``present`` is given."""
    return [
        Line2D([], [], color=style.colour, marker=style.marker, linestyle=style.line, label=style.label, **line)
        for key, style in styles.items()
        if present is None or key in present
    ]


def legend_below(ax: Axes, handles: Sequence[Artist], *, columns: int) -> None:
    """Put a legend below the axes' label, where no data are."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    below = ax.transAxes + ScaledTranslation(0, -0.55, figure.dpi_scale_trans)
    named_legend(ax, handles, loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, ncols=columns)


def named_legend(parent: Axes | Figure, handles: Sequence[Artist], **options: Any) -> Legend:
    """Add a legend that also shows labels beginning with ``_``, which matplotlib leaves out."""
    labels = [str(handle.get_label()) for handle in handles]
    if labels:
        options["labels"] = [f"\N{ZERO WIDTH SPACE}{label}" for label in labels]
    legend = parent.legend(handles=handles, **options)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)
    return legend
