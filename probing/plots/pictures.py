"""A gallery: a row a way of making pictures, a column a caption."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from PIL import Image

from probing.plots.grid import facet_grid
from probing.plots.tokens import hide_axes

_PICTURE = 0.85


def figure_pictures(
    pictures: Mapping[str, Sequence[Image.Image]],
    captions: Sequence[str],
    *,
    title: str,
    caption: str = "Same captions and noise in every row.",
) -> Figure:
    """Draw pictures of the same captions, made in several ways.

    Args:
        pictures: By the name of the way: one a caption.
        captions: The captions.
        title: Title of the figure.
        caption: Caption below the figure.

    Raises:
        ValueError: A way has another number of pictures.
    """
    with facet_grid(
        len(pictures),
        len(captions),
        ((_PICTURE + 0.3) * len(captions) + 1.0, (_PICTURE + 0.25) * len(pictures) + 1.3),
        title=title,
        caption=caption,
    ) as (figure, grid):
        for number, (axes, (name, row)) in enumerate(zip(grid, pictures.items(), strict=True)):
            for ax, picture, words in zip(axes, row, captions, strict=True):
                hide_axes(ax)
                ax.imshow(picture)
                if number == 0:
                    ax.set_title(textwrap.fill(words, 17), fontsize=6.5)
            axes[0].set_ylabel(textwrap.fill(name, 12), fontsize=8, rotation=0, ha="right", va="center")
    return figure
