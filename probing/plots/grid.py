"""The one layout of figures with several panels: a grid of axes, below it a legend with the caption, a title above."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from probing.plots.style import house_style, named_legend


@contextmanager
def facet_grid(
    rows: int,
    columns: int,
    size: tuple[float, float],
    *,
    title: str,
    caption: str,
    handles: Sequence[Artist] = (),
    legend_columns: int = 1,
    outer_labels: bool = False,
    **subplots: Any,
) -> Iterator[tuple[Figure, np.ndarray]]:
    """Make a figure and its grid of axes to draw on, in the house style; axes that stay empty are hidden.

    Args:
        rows: Number of rows, usually one a facet.
        columns: Number of columns, usually one a stream.
        size: Width and height in inches.
        title: Title of the figure.
        caption: Caption below all axes.
        handles: Entries of the legend, which is shown with the caption.
        legend_columns: Entries in a row.
        outer_labels: Whether to label axes on the outside of the grid only.
        **subplots: Further arguments of :meth:`matplotlib.figure.Figure.subplots`.
    """
    with house_style():
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, **subplots)
        yield figure, grid
        for ax in grid.flat:
            if not ax.has_data():
                ax.set_axis_off()
            elif outer_labels:
                ax.label_outer()
        add_caption(figure, caption, handles, columns=legend_columns)
        figure.suptitle(title, fontsize=12)


def add_caption(figure: Figure, caption: str, handles: Sequence[Artist] = (), *, columns: int = 1) -> None:
    """Put a caption and one legend below all axes of a figure."""
    legend = named_legend(
        figure,
        handles,
        loc="outside lower center",
        ncols=columns,
        title=textwrap.fill(caption, int(figure.get_figwidth() * 14)),
        title_fontsize=8.5,
    )
    legend.get_title().set_color("#444444")
    legend.get_title().set_multialignment("center")
