"""The one style of all figures; colours are Okabe and Ito's, which colour-blind readers tell apart."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.transforms import ScaledTranslation

from probing.plots.text import plain_text

LATENTS = "#D55E00"
RANDOM_INIT = "#767676"
SHUFFLED = "#9A9A9A"
REFERENCE = "#222222"
CEILING = "#0072B2"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

_STYLE: dict[Any, Any] = {
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


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in the house's style and leave the global one as it was."""
    with mpl.rc_context({**_STYLE, **plain_text()}):
        yield


def new_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """Give the axes back, or new ones on a figure of ``size`` inches."""
    return Figure(figsize=size, layout="constrained").subplots() if ax is None else ax


def sigma_looks(sigmas: Sequence[float]) -> dict[float, tuple[str, str]]:
    """Give each noise level a colour from dark (clean) to light (noisy), and a marker of its own."""
    ordered = sorted(set(sigmas))
    shades = mpl.colormaps["viridis"](np.linspace(0.05, 0.78, max(len(ordered), 2)))
    return {sigma: (to_hex(shades[i]), MARKERS[i % len(MARKERS)]) for i, sigma in enumerate(ordered)}


def block_axis(ax: Axes, num_blocks: int | None, *, depth: bool) -> None:
    """Label the horizontal axis by block, with integer ticks, and by depth above where asked."""
    ax.set_xlabel("block (its output)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9, min_n_ticks=1))
    if depth and num_blocks:

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


def percent_axis(ax: Axes) -> None:
    ax.yaxis.set_major_formatter(percent())


def reference_line(ax: Axes, value: float, label: str, **line) -> None:
    """Draw a horizontal line with its name beside the axes, where no data are."""
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


def legend_below(ax: Axes, handles: Sequence[Artist], *, columns: int) -> None:
    """Put a legend under the axes' label, where no data are."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    below = ax.transAxes + ScaledTranslation(0, -0.55, figure.dpi_scale_trans)
    with _labels_as_they_are(handles) as name_them:
        name_them(
            ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, ncols=columns)
        )


@contextmanager
def _labels_as_they_are(handles: Sequence[Artist]) -> Iterator[Callable[[Legend], None]]:
    """Give a legend labels that matplotlib would leave out, those that begin with ``_``: set them once it is made."""
    labels = [str(handle.get_label()) for handle in handles]
    for handle, label in zip(handles, labels, strict=True):
        if label.startswith("_"):
            handle.set_label(f"\N{ZERO WIDTH SPACE}{label}")

    def name_them(legend: Legend) -> None:
        for text, label in zip(legend.get_texts(), labels, strict=True):
            if text.get_text() != label:
                text.set_text(label)

    try:
        yield name_them
    finally:
        for handle, label in zip(handles, labels, strict=True):
            handle.set_label(label)


def caption_and_legend(figure: Figure, caption: str, handles: Sequence[Line2D], *, columns: int) -> None:
    """Put a caption and one legend under all axes of a figure."""
    text = textwrap.fill(caption, int(figure.get_figwidth() * 14))
    with _labels_as_they_are(handles) as name_them:
        legend = figure.legend(
            handles=handles, loc="outside lower center", ncols=columns, title=text, title_fontsize=8.5
        )
        name_them(legend)
    legend.get_title().set_color("#444444")
    legend.get_title().set_multialignment("center")
