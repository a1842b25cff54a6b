"""Pairs as a person sees them: two pictures under their prompt, and who was chosen."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from probing.plots.text import plain_text, shown_name


def figure_pairs(
    pairs: pd.DataFrame, prompts: Mapping[str, str], open_image: Callable[[str], Image.Image], *, columns: int = 4
) -> Figure:
    """Draw each pair, the chosen picture framed.

    Args:
        pairs: Rows with ``prompt_id, first, second, choice, facet``, and ``probability`` where it is known.
        prompts: Prompt of each prompt id.
        open_image: Opens an item's picture.
        columns: Pairs in a row.
    """
    with mpl.rc_context(plain_text()):
        return _draw(pairs, prompts, open_image, columns)


def _draw(
    pairs: pd.DataFrame, prompts: Mapping[str, str], open_image: Callable[[str], Image.Image], columns: int
) -> Figure:
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.1 * rows), layout="constrained")
    cells = figure.subfigures(rows, columns, squeeze=False).flat
    for cell, (_, pair) in zip(cells, pairs.iterrows(), strict=False):
        said = shown_name(pair["facet"])
        if pd.notna(pair.get("probability")):
            chance = pair["probability"] if pair["choice"] >= 0.5 else 1 - pair["probability"]
            said = f"{said}, chosen with p = {chance:.2f}"
        cell.suptitle(f"{textwrap.fill(shown_name(prompts[pair['prompt_id']], 200), 38)}\n({said})", fontsize=7)
        for ax, side, chosen in zip(
            cell.subplots(1, 2), ("first", "second"), (pair["choice"] > 0.5, pair["choice"] < 0.5), strict=True
        ):
            ax.imshow(open_image(pair[side]), interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            for spine in ax.spines.values():
                spine.set(linewidth=3 if chosen else 0.5, color="#009E73" if chosen else "0.7")
            ax.set_xlabel("chosen" if chosen else "", fontsize=7, color="#00654a")
    return figure
