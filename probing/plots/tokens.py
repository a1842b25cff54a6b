"""Token maps: a pair's two pictures, and over them where its margin comes from."""

from __future__ import annotations

import base64
import textwrap

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from probing.plots import style

CAPTION = (
    "Scores of a linear probe by token, less the mean of the pair's two rewards: each map's mean is half the margin, "
    "above 0 for one picture and below for the other. Green frame: chosen by people. + and − mark scores beyond half of "
    "the scale."
)
_SAID = {
    "highest": "surest and right",
    "lowest": "margin nearest 0",
    "wrong": "surest and wrong",
}
_MAP = "RdBu_r"
_PICTURES_ACROSS = 8
_LARGEST_MARKED = 16
"""Tokens along a side, up to which the strongest are marked by a sign."""


def picture_of(item: pd.DataFrame) -> UInt8[np.ndarray, "height width 3"]:
    """Put an item's patches together.

    Args:
        item: Rows of one item of one pair of :func:`probing.analysis.token_maps.token_maps`.
    """
    rows, columns = int(item["row"].max()) + 1, int(item["column"].max()) + 1
    flat = [np.frombuffer(base64.b64decode(patch), dtype=np.uint8) for patch in item["patch"]]
    side = round((len(flat[0]) / 3) ** 0.5)
    laid = np.zeros((rows, columns, side, side, 3), dtype=np.uint8)
    for row, column, patch in zip(item["row"], item["column"], flat, strict=True):
        laid[row, column] = patch.reshape(side, side, 3)
    return laid.swapaxes(1, 2).reshape(rows * side, columns * side, 3)


def scores_of(item: pd.DataFrame) -> Float[np.ndarray, "row column"]:
    """Lay an item's token scores out."""
    laid = np.full((int(item["row"].max()) + 1, int(item["column"].max()) + 1), np.nan)
    laid[item["row"], item["column"]] = item["score"]
    return laid


def plot_token_map(
    item: pd.DataFrame, *, centre: float = 0.0, largest: float | None = None, ax: Axes | None = None
) -> AxesImage:
    """Draw one item's token scores.

    Args:
        item: Rows of one item of one pair.
        centre: What is subtracted; the mean reward of the pair shows where the margin is.
        largest: End of the scale on both sides; that of the map if None.
        ax: Axes to draw on; new ones if None.

    Returns:
        The image, for a colour bar.
    """
    scores = scores_of(item) - centre
    largest = largest or float(np.abs(scores).max()) or 1.0
    with style.house_style():
        ax = style.new_axes(ax, (2.4, 2.4))
        image = ax.imshow(scores, cmap=_MAP, norm=Normalize(-largest, largest), interpolation="nearest")
        if max(scores.shape) <= _LARGEST_MARKED:
            for row, column in np.argwhere(np.abs(scores) > largest / 2):
                sign = "+" if scores[row, column] > 0 else "−"
                ax.text(column, row, sign, ha="center", va="center", fontsize=6, color="white", fontweight="bold")
        _bare(ax)
    return image


def figure_token_maps(table: pd.DataFrame) -> Figure:
    """Draw the highest, lowest and most wrongly ranked pairs of each facet as a gallery.

    Args:
        table: Of :func:`probing.analysis.token_maps.token_maps`, or its CSV.
    """
    facets = list(dict.fromkeys(table["facet"]))
    across = max(1, _PICTURES_ACROSS // (2 * len(facets)))
    selections = [name for name in _SAID if (table["selection"] == name).any()]
    with style.house_style():
        figure = Figure(figsize=(1.1 * 2 * across * len(facets) + 0.3, 3.15 * len(selections) + 1.6),
                        layout="constrained")  # fmt: skip
        columns = figure.subfigures(1, len(facets), squeeze=False)[0]
        for column, facet in zip(columns, facets, strict=True):
            own = table[table["facet"] == facet]
            largest = float(np.quantile(np.abs(_centred(own)), 0.99))
            one = own.iloc[0]
            column.suptitle(f"{facet}: block {one['block']}, σ = {one['sigma']:g}\n{one['n_pairs']:,} test pairs of "
                            f"{one['n_prompts']:,} prompts", fontsize=10)  # fmt: skip
            cells = column.subfigures(len(selections) + 1, across, squeeze=False,
                                      height_ratios=[1.0] * len(selections) + [0.16])  # fmt: skip
            image = None
            for line, selection in enumerate(selections):
                pairs = own[own["selection"] == selection].sort_values("rank", kind="stable")
                for cell, (_, pair) in zip(cells[line], pairs.groupby("rank"), strict=False):
                    image = _draw_pair(cell, pair, largest)
            if image is not None:
                spread = column.add_axes((0.15, 0.035, 0.7, 0.012))
                bar = figure.colorbar(image, cax=spread, orientation="horizontal")
                bar.ax.tick_params(labelsize=8)
                bar.set_label("token score less the pair's mean (logits)", fontsize=8)
        text = textwrap.fill(CAPTION, int(figure.get_figwidth() * 15))
        figure.supxlabel(text, fontsize=8.5, color="#444444")
        models = ", ".join(str(model) for model in table["model"].dropna().unique())
        figure.suptitle(f"Where do margins come from in {models or 'the backbone'}?", fontsize=12)
    return figure


def _draw_pair(cell, pair: pd.DataFrame, largest: float) -> AxesImage:
    one = pair.iloc[0]
    title = textwrap.shorten(str(one["prompt"]), 70, placeholder="…")
    cell.suptitle(f"{_SAID[one['selection']]}, {one['margin']:+.1f}\n{textwrap.fill(title, 30)}", fontsize=7)
    axes = cell.subplots(2, 2)
    centre = float(pair.groupby("side")["score"].mean().mean())
    for place, (_, item) in enumerate(pair.groupby("side")):
        chosen = bool(item["chosen"].iloc[0])
        picture, scores = axes[0, place], axes[1, place]
        picture.imshow(picture_of(item), interpolation="nearest")
        _bare(picture)
        for spine in picture.spines.values():
            spine.set(visible=True, linewidth=2.5 if chosen else 0.5, color="#009E73" if chosen else "0.7")
        picture.set_xlabel("chosen" if chosen else "", fontsize=7, color="#00654a", labelpad=2)
        image = plot_token_map(item, centre=centre, largest=largest, ax=scores)
    return image


def _centred(table: pd.DataFrame) -> Float[np.ndarray, " token"]:
    keys = ["selection", "pair_id"]
    means = table.groupby([*keys, "side"])["score"].transform("mean")
    centre = means.groupby([table[key] for key in keys]).transform(lambda own: own.unique().mean())
    return (table["score"] - centre).to_numpy()


def _bare(ax: Axes) -> None:
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
