"""Heatmaps whose cells can be read without colour: numbers in them where there is room, dark to light in grey too."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

MAP = "cividis"
"""Its lightness rises evenly, so it survives grey printing and every colour blindness."""
MOST_NUMBERS = 14
"""Columns up to which numbers fit into cells."""


def draw_heatmap(
    ax: Axes,
    values: Float[np.ndarray, "row column"],
    limits: tuple[float, float],
    *,
    outlined: Bool[np.ndarray, "row column"] | None = None,
    below: Sequence[tuple[int, int, str]] = (),
) -> None:
    """Draw accuracies as cells, in whole percent; NaN is left empty.

    Args:
        ax: Where.
        values: Shares in [0, 1].
        limits: Of the colour map.
        outlined: Cells with a frame.
        below: Row, column and a second line of a cell.
    """
    scale, colours = Normalize(*limits), mpl.colormaps[MAP]
    ax.imshow(np.ma.masked_invalid(values), cmap=colours, norm=scale, aspect="auto", interpolation="nearest")
    ax.grid(False)
    columns = values.shape[1]
    second = {(row, column): text for row, column, text in below}
    frames = np.zeros(values.shape, dtype=bool) if outlined is None else outlined
    for row, column in zip(*np.nonzero(np.isfinite(values)), strict=True):
        ink = "white" if scale(values[row, column]) < 0.55 else "black"
        if columns <= MOST_NUMBERS:
            said = f"{100 * values[row, column]:.0f}"
            if text := second.get((int(row), int(column))):
                said += f"\n{text}"
            weight = "bold" if frames[row, column] else "normal"
            ax.text(
                column, row, said, ha="center", va="center", color=ink, fontsize=8, fontweight=weight, linespacing=0.95
            )
        if frames[row, column]:
            # Two frames, one dark and one light: seen on every colour.
            for colour, width in (("black", 3.2), ("white", 1.2)):
                ax.add_patch(
                    Rectangle(
                        (column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=colour, linewidth=width, zorder=4
                    )
                )


def accuracy_bar(axes: Sequence[Axes], limits: tuple[float, float], label: str = "pair accuracy (chance 50%)") -> None:
    """Add one colour bar beside axes."""
    figure = axes[0].get_figure()
    assert figure is not None
    bar = figure.colorbar(
        ScalarMappable(Normalize(*limits), mpl.colormaps[MAP]), ax=list(axes), shrink=0.85, aspect=28, pad=0.015
    )
    bar.set_label(label, fontsize=9)
    bar.locator = MaxNLocator(6, steps=[1, 2, 5, 10])
    bar.update_ticks()
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    bar.ax.tick_params(labelsize=8)


def limits_of(values: np.ndarray) -> tuple[float, float]:
    """From the lowest to the highest."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return low, max(high, low + 0.01)
