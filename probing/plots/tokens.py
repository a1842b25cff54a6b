"""Token maps: a pair's two pictures, and below them the score of each token."""

from __future__ import annotations

import base64
import io
import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from probing.plots import style
from probing.plots.curves import describe_models
from probing.plots.pairs import CHOSEN_TEXT, draw_framed
from probing.plots.text import shown_name

CAPTION = (
    "Scores of a linear probe by token, less the mean of all maps of the facet at that position, and centred by "
    "pair: a map's mean is half the margin, above 0 for one picture and below for the other. Green frame: chosen by "
    "the annotators. + and − mark scores beyond half of the scale."
)
_SELECTIONS = {"highest": "largest margin, right", "lowest": "margin nearest 0", "wrong": "largest margin, wrong"}
_MAP = "RdBu_r"
_PICTURES_ACROSS = 8
_MARGIN, _PICTURE, _GAP = 0.15, 0.88, 0.1
_TEXT, _CHOSEN = 0.72, 0.17
_CELL_WIDTH = 2 * _PICTURE + _GAP + _MARGIN
_CELL_HEIGHT = _TEXT + _CHOSEN + 2 * _PICTURE + _GAP + 0.1
_HEADER, _BAR = 1.05, 0.65
"""Sizes in the gallery, in inches."""
_MAX_MARKED = 16
"""Tokens along a side up to which large scores are marked by a sign."""


def picture_of(item: pd.Series) -> Image.Image:
    """Open the picture that a row of :func:`probing.analysis.token_maps.token_maps` holds."""
    return Image.open(io.BytesIO(base64.b64decode(item["picture"])))


def scores_of(item: pd.Series) -> Float[np.ndarray, "row column"]:
    """Lay out the token scores that a row holds; their mean is its reward."""
    return np.array([float(score) for score in str(item["scores"]).split()]).reshape(
        int(item["rows"]), int(item["columns"])
    )


def centred_maps(table: pd.DataFrame) -> list[Float[np.ndarray, "row column"]]:
    """Subtract from the maps what is equal for the two items of a pair.

    That is the mean of all maps at each position (a large part of a probe's score depends on the position alone), and
    the mean of the pair. The means of the two maps still differ by the margin.

    Args:
        table: Rows of one facet.

    Returns:
        A map a row, in the table's order.
    """
    raw = np.stack([scores_of(item) for _, item in table.iterrows()])
    raw = raw - raw.mean(axis=0)
    of_pair = pd.Series(raw.mean(axis=(1, 2))).groupby([table["selection"].array, table["pair_id"].array])
    return list(raw - of_pair.transform("mean").to_numpy()[:, None, None])


def plot_token_map(
    scores: Float[np.ndarray, "row column"], *, largest: float | None = None, ax: Axes | None = None
) -> Axes:
    """Draw a map of token scores, with 0 in the middle of the scale.

    Args:
        scores: Scores of one item.
        largest: End of the scale on both sides; that of the map if None.
        ax: Axes to draw on; new ones if None.

    Returns:
        The axes; ``ax.images[0]`` has the colours, for a colour bar.
    """
    largest = largest or float(np.abs(scores).max()) or 1.0
    with style.house_style():
        ax = style.new_axes(ax, (2.4, 2.4))
        ax.imshow(scores, cmap=_MAP, norm=Normalize(-largest, largest), interpolation="nearest")
        if max(scores.shape) <= _MAX_MARKED:
            for row, column in np.argwhere(np.abs(scores) > largest / 2):
                sign = "+" if scores[row, column] > 0 else "−"
                ax.text(column, row, sign, ha="center", va="center", fontsize=7, color="white", fontweight="bold")
        hide_axes(ax)
    return ax


def figure_token_maps(table: pd.DataFrame) -> Figure:
    """Draw the highest, lowest and most wrongly ranked pairs of each facet as a gallery.

    Positions are computed here: the constrained layout of nested grids varies by fractions of a pixel between runs.

    Args:
        table: Result of :func:`probing.analysis.token_maps.token_maps`, or its CSV.
    """
    facets = list(dict.fromkeys(table["facet"]))
    across = max(1, _PICTURES_ACROSS // (2 * len(facets)))
    selections = [name for name in _SELECTIONS if (table["selection"] == name).any()]
    width = _MARGIN + across * len(facets) * _CELL_WIDTH
    caption = textwrap.fill(CAPTION, int(width * 14))
    below = 0.2 * (caption.count("\n") + 1) + 0.1
    height = _HEADER + len(selections) * _CELL_HEIGHT + _BAR + below
    with style.house_style():
        figure = Figure(figsize=(width, height))
        page = _Page(figure, width, height)
        page.write(width / 2, 0.2, f"Token maps of {describe_models(table)}", fontsize=12)
        page.write(width / 2, height - below / 2, caption, fontsize=8.5, color="#444444")
        for number, facet in enumerate(facets):
            left = _MARGIN + number * across * _CELL_WIDTH
            rows = table[table["facet"] == facet].reset_index(drop=True)
            rows = rows.assign(map=centred_maps(rows))
            largest = float(np.quantile(np.abs(np.stack(rows["map"].tolist())), 0.99)) or 1.0
            one = rows.iloc[0]
            text = f"block {one['block']}, σ = {one['sigma']:g}\n{one['n_pairs']:,} pairs, {one['n_prompts']:,} prompts"
            page.write(left + (across * _CELL_WIDTH - _MARGIN) / 2, 0.7, f"{shown_name(facet)}\n{text}", fontsize=8.5)
            for line, selection in enumerate(selections):
                pairs = rows[rows["selection"] == selection].groupby("rank")
                for column, (_, pair) in zip(range(across), pairs, strict=False):
                    top = _HEADER + line * _CELL_HEIGHT
                    image = _draw_pair(page, left + column * _CELL_WIDTH, top, pair.sort_values("side"), largest)
            side = 0.1 * across * _CELL_WIDTH
            ax = page.axes(left + side, height - below - _BAR + 0.1, across * _CELL_WIDTH - _MARGIN - 2 * side, 0.12)
            bar = figure.colorbar(image, cax=ax, orientation="horizontal")
            bar.ax.tick_params(labelsize=8)
            bar.set_label("token score, centred (logits)", fontsize=8)
    return figure


@dataclass(frozen=True)
class _Page:
    """A figure with positions in inches from its upper left corner."""

    figure: Figure
    width: float
    height: float

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = self.height - top - height
        return self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))

    def write(self, x: float, y: float, text: str, **font: Any) -> None:
        self.figure.text(x / self.width, 1 - y / self.height, text, ha="center", va="center", **font)


def _draw_pair(page: _Page, left: float, top: float, pair: pd.DataFrame, largest: float) -> AxesImage:
    one = pair.iloc[0]
    prompt = textwrap.fill(textwrap.shorten(str(one["prompt"]), 78, placeholder=" …"), 27)
    text = f"{_SELECTIONS[one['selection']]}, {one['margin']:+.2f}\n{prompt}"
    page.write(left + (_CELL_WIDTH - _MARGIN) / 2, top + _TEXT / 2, text, fontsize=7.5)
    for number, (_, item) in enumerate(pair.iterrows()):
        x = left + number * (_PICTURE + _GAP)
        picture = page.axes(x, top + _TEXT + _CHOSEN, _PICTURE, _PICTURE)
        draw_framed(picture, picture_of(item), chosen=bool(item["chosen"]))
        if item["chosen"]:
            page.write(x + _PICTURE / 2, top + _TEXT + _CHOSEN / 2 - 0.02, "chosen", fontsize=7, color=CHOSEN_TEXT)
        scores = page.axes(x, top + _TEXT + _CHOSEN + _PICTURE + _GAP, _PICTURE, _PICTURE)
        image = plot_token_map(item["map"], largest=largest, ax=scores).images[0]
    return image


def hide_axes(ax: Axes) -> None:
    """Draw no grid, no ticks and no frame."""
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
