"""Pairs of pictures under their prompt, the chosen one framed."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from probing.plots.text import plain_text, shown_name

_CHOSEN = "#009E73"
CHOSEN_TEXT = "#00654a"


def draw_framed(ax: Axes, picture: Image.Image, *, chosen: bool) -> None:
    """Draw a picture without axes, in a green frame if it was chosen."""
    ax.imshow(picture, interpolation="nearest")
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, linewidth=3 if chosen else 0.5, color=_CHOSEN if chosen else "0.7")


def figure_pairs(
    pairs: pd.DataFrame, prompts: Mapping[str, str], open_image: Callable[[str], Image.Image], *, columns: int = 4
) -> Figure:
    """Draw each pair, the chosen picture framed.

    Args:
        pairs: Rows with ``prompt_id, first, second, choice, facet``, and ``probability`` if available.
        prompts: Prompt of each prompt id.
        open_image: Opens an item's picture.
        columns: Pairs in a row.
    """
    rows = -(-len(pairs) // columns)
    with mpl.rc_context(plain_text()):
        figure = Figure(figsize=(2.6 * columns, 2.1 * rows), layout="constrained")
        cells = figure.subfigures(rows, columns, squeeze=False).flat
        for cell, (_, pair) in zip(cells, pairs.iterrows(), strict=False):
            label = shown_name(pair["facet"])
            if pd.notna(pair.get("probability")):
                chance = pair["probability"] if pair["choice"] >= 0.5 else 1 - pair["probability"]
                label = f"{label}, chosen with p = {chance:.2f}"
            prompt = textwrap.fill(shown_name(prompts[pair["prompt_id"]], 200), 38)
            cell.suptitle(f"{prompt}\n({label})", fontsize=7)
            choices = {"first": pair["choice"] > 0.5, "second": pair["choice"] < 0.5}
            for ax, (side, chosen) in zip(cell.subplots(1, 2), choices.items(), strict=True):
                draw_framed(ax, open_image(pair[side]), chosen=chosen)
                ax.set_xlabel("chosen" if chosen else "", fontsize=7, color=CHOSEN_TEXT)
    return figure
