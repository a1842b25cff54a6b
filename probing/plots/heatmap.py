"""Heatmaps of accuracy that can be read without colour: numbers in cells where they fit, light to dark in grey too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from probing.plots.style import percent

_MAP = "cividis"
"""Its lightness rises evenly, so it survives grey printing and every colour blindness."""
_MAX_NUMBERS = 14
"""Columns up to which numbers fit into cells."""


def draw_heatmap(
    ax: Axes,
    values: Float[np.ndarray, "row column"],
    limits: tuple[float, float],
    *,
    framed: Bool[np.ndarray, "row column"],
    second_lines: Mapping[tuple[int, int], str] | None = None,
) -> None:
    """Draw accuracies as cells, in whole percent; NaN is left empty.

    Args:
        ax: Axes to draw on.
        values: Shares in [0, 1].
        limits: Limits of the colour map.
        framed: Cells with a frame.
        second_lines: By row and column, the second line of a cell.
    """
    scale, second_lines = Normalize(*limits), second_lines or {}
    ax.imshow(np.ma.masked_invalid(values), cmap=_MAP, norm=scale, aspect="auto", interpolation="nearest")
    ax.grid(False)
    for row, column in np.argwhere(np.isfinite(values)).tolist():
        if values.shape[1] <= _MAX_NUMBERS:
            text = f"{100 * values[row, column]:.0f}"
            if line := second_lines.get((row, column)):
                text += f"\n{line}"
            ax.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                color="white" if scale(values[row, column]) < 0.55 else "black",
                fontsize=8,
                fontweight="bold" if framed[row, column] else "normal",
                linespacing=0.95,
            )
        if framed[row, column]:
            # One dark and one light frame: visible on every colour.
            for colour, width in (("black", 3.2), ("white", 1.2)):
                ax.add_patch(
                    Rectangle(
                        (column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=colour, linewidth=width, zorder=4
                    )
                )


def block_ticks(axis: Axis, blocks: Sequence[int], label: str) -> None:
    """Label the columns or rows of a heatmap by block, at most about eight if there are many."""
    step = 1 if len(blocks) <= _MAX_NUMBERS else -(-len(blocks) // 8)
    axis.set_ticks(range(0, len(blocks), step), [str(block) for block in blocks[::step]])
    axis.set_label_text(label)


def accuracy_bar(axes: Sequence[Axes], limits: tuple[float, float]) -> None:
    """Add one colour bar beside axes."""
    figure = axes[0].get_figure()
    assert figure is not None
    mappable = ScalarMappable(Normalize(*limits), mpl.colormaps[_MAP])
    # A bar beside several rows is no wider than beside one.
    positions = [ax.get_subplotspec() for ax in axes]
    rows = len({position.rowspan.start for position in positions if position is not None}) or 1
    bar = figure.colorbar(mappable, ax=list(axes), shrink=0.85, aspect=28 * rows, pad=0.015)
    bar.set_label("pair accuracy (chance 50%)", fontsize=9)
    bar.locator = MaxNLocator(6, steps=[1, 2, 5, 10])
    bar.update_ticks()
    bar.ax.yaxis.set_major_formatter(percent())
    bar.ax.tick_params(labelsize=8)


def limits_of(values: np.ndarray) -> tuple[float, float]:
    """Return limits that include chance, and at least ten points above it: noise must not look like structure."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return min(low, 0.5), max(high, 0.6)
