"""Token maps: a pair's two pictures, and under them where its margin comes from."""

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
from probing.plots.text import shown_name, shown_names

CAPTION = (
    "Scores of a linear probe by token, less what is common to all maps of the facet at that place, and centred by "
    "pair: a map's mean is half the margin, above 0 for one picture and below for the other. Green frame: chosen by "
    "the annotators. + and − mark scores beyond half of the scale."
)
_SAID = {"highest": "surest and right", "lowest": "margin nearest 0", "wrong": "surest and wrong"}
_MAP = "RdBu_r"
_PICTURES_ACROSS = 8
_MARGIN, _PICTURE, _GAP = 0.15, 0.88, 0.1
_WORDS, _CHOSEN = 0.72, 0.17
_CELL_WIDTH = 2 * _PICTURE + _GAP + _MARGIN
_CELL_HEIGHT = _WORDS + _CHOSEN + 2 * _PICTURE + _GAP + 0.1
_HEADER, _BAR = 1.05, 0.65
"""Of the gallery, in inches."""
_LARGEST_MARKED = 16
"""Tokens along a side, up to which the strongest are marked by a sign."""


def picture_of(item: pd.Series) -> Image.Image:
    """Open the picture that a row of :func:`probing.analysis.token_maps.token_maps` holds."""
    return Image.open(io.BytesIO(base64.b64decode(item["picture"])))


def scores_of(item: pd.Series) -> Float[np.ndarray, "row column"]:
    """Lay out the token scores that a row holds; their mean is its reward."""
    return np.array([float(score) for score in str(item["scores"]).split()]).reshape(
        int(item["rows"]), int(item["columns"])
    )


def centred_maps(table: pd.DataFrame) -> list[Float[np.ndarray, "row column"]]:
    """Take out of the maps what does not tell the two items of a pair apart.

    That is the mean of all maps at each place (a probe's score has a large part that depends on the place alone), and
    the mean of the pair. Both are the same for the two items, so the means of their maps still differ by the margin.

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
) -> AxesImage:
    """Draw a map of token scores, with 0 in the middle of the scale.

    Args:
        scores: Of one item.
        largest: End of the scale on both sides; that of the map if None.
        ax: Axes to draw on; new ones if None.

    Returns:
        The image, for a colour bar.
    """
    largest = largest or float(np.abs(scores).max()) or 1.0
    with style.house_style():
        ax = style.new_axes(ax, (2.4, 2.4))
        image = ax.imshow(scores, cmap=_MAP, norm=Normalize(-largest, largest), interpolation="nearest")
        if max(scores.shape) <= _LARGEST_MARKED:
            for row, column in np.argwhere(np.abs(scores) > largest / 2):
                sign = "+" if scores[row, column] > 0 else "−"
                ax.text(column, row, sign, ha="center", va="center", fontsize=7, color="white", fontweight="bold")
        _bare(ax)
    return image


def figure_token_maps(table: pd.DataFrame) -> Figure:
    """Draw the highest, lowest and most wrongly ranked pairs of each facet as a gallery.

    Places are computed and not solved for: a layout of nested solvers moves by fractions of a pixel from run to run.

    Args:
        table: Of :func:`probing.analysis.token_maps.token_maps`, or its CSV.
    """
    facets = list(dict.fromkeys(table["facet"]))
    across = max(1, _PICTURES_ACROSS // (2 * len(facets)))
    selections = [name for name in _SAID if (table["selection"] == name).any()]
    width = _MARGIN + across * len(facets) * _CELL_WIDTH
    caption = textwrap.fill(CAPTION, int(width * 14))
    below = 0.2 * (caption.count("\n") + 1) + 0.1
    height = _HEADER + len(selections) * _CELL_HEIGHT + _BAR + below
    models = shown_names(table["model"])
    with style.house_style():
        figure = Figure(figsize=(width, height))
        page = _Page(figure, width, height)
        page.write(width / 2, 0.2, f"Where do margins come from in {models or 'the backbone'}?", fontsize=12)
        page.write(width / 2, height - below / 2, caption, fontsize=8.5, color="#444444")
        for number, facet in enumerate(facets):
            left = _MARGIN + number * across * _CELL_WIDTH
            own = table[table["facet"] == facet].reset_index(drop=True)
            own = own.assign(map=centred_maps(own))
            largest = float(np.quantile(np.abs(np.stack(own["map"].tolist())), 0.99)) or 1.0
            one = own.iloc[0]
            said = f"block {one['block']}, σ = {one['sigma']:g}\n{one['n_pairs']:,} pairs, {one['n_prompts']:,} prompts"
            page.write(left + (across * _CELL_WIDTH - _MARGIN) / 2, 0.7, f"{shown_name(facet)}\n{said}", fontsize=8.5)
            for line, selection in enumerate(selections):
                pairs = own[own["selection"] == selection].groupby("rank")
                for place, (_, pair) in zip(range(across), pairs, strict=False):
                    top = _HEADER + line * _CELL_HEIGHT
                    image = _draw_pair(page, left + place * _CELL_WIDTH, top, pair.sort_values("side"), largest)
            side = 0.1 * across * _CELL_WIDTH
            ax = page.axes(left + side, height - below - _BAR + 0.1, across * _CELL_WIDTH - _MARGIN - 2 * side, 0.12)
            bar = figure.colorbar(image, cax=ax, orientation="horizontal")
            bar.ax.tick_params(labelsize=8)
            bar.set_label("token score, centred (logits)", fontsize=8)
    return figure


@dataclass(frozen=True)
class _Page:
    """A figure on which things are placed in inches, from its upper left corner."""

    figure: Figure
    width: float
    height: float

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = self.height - top - height
        return self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))

    def write(self, x: float, y: float, text: str, **look: Any) -> None:
        self.figure.text(x / self.width, 1 - y / self.height, text, ha="center", va="center", **look)


def _draw_pair(page: _Page, left: float, top: float, pair: pd.DataFrame, largest: float) -> AxesImage:
    one = pair.iloc[0]
    prompt = textwrap.fill(textwrap.shorten(str(one["prompt"]), 78, placeholder=" …"), 27)
    said = f"{_SAID[one['selection']]}, {one['margin']:+.2f}\n{prompt}"
    page.write(left + (_CELL_WIDTH - _MARGIN) / 2, top + _WORDS / 2, said, fontsize=7.5)
    for place, (_, item) in enumerate(pair.iterrows()):
        x = left + place * (_PICTURE + _GAP)
        picture = page.axes(x, top + _WORDS + _CHOSEN, _PICTURE, _PICTURE)
        picture.imshow(picture_of(item), interpolation="nearest")
        _bare(picture)
        for spine in picture.spines.values():
            spine.set(
                visible=True, linewidth=3.0 if item["chosen"] else 0.5, color="#009E73" if item["chosen"] else "0.7"
            )
        if item["chosen"]:
            page.write(x + _PICTURE / 2, top + _WORDS + _CHOSEN / 2 - 0.02, "chosen", fontsize=7, color="#00654a")
        scores = page.axes(x, top + _WORDS + _CHOSEN + _PICTURE + _GAP, _PICTURE, _PICTURE)
        image = plot_token_map(item["map"], largest=largest, ax=scores)
    return image


def _bare(ax: Axes) -> None:
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
