"""Token maps: a pair's two pictures, and under them where its margin comes from."""

from __future__ import annotations

import base64
import io
import textwrap

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from probing.plots import style

CAPTION = (
    "Scores of a linear probe by token, less what is common to all maps of the facet at that place, and centred by "
    "pair: a map's mean is half the margin, above 0 for one picture and below for the other. Green frame: chosen by "
    "people. + and − mark scores beyond half of the scale."
)
_SAID = {"highest": "surest and right", "lowest": "margin nearest 0", "wrong": "surest and wrong"}
_MAP = "RdBu_r"
_PICTURES_ACROSS = 8
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

    Args:
        table: Of :func:`probing.analysis.token_maps.token_maps`, or its CSV.
    """
    facets = list(dict.fromkeys(table["facet"]))
    across = max(1, _PICTURES_ACROSS // (2 * len(facets)))
    selections = [name for name in _SAID if (table["selection"] == name).any()]
    with style.house_style():
        size = (1.95 * across * len(facets) + 0.2, 2.75 * len(selections) + 1.75)
        figure = Figure(figsize=size, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)  # type: ignore[union-attr, call-arg]
        for column, facet in zip(figure.subfigures(1, len(facets), squeeze=False)[0], facets, strict=True):
            own = table[table["facet"] == facet].reset_index(drop=True)
            own = own.assign(map=centred_maps(own))
            largest = float(np.quantile(np.abs(np.stack(own["map"].tolist())), 0.99)) or 1.0
            one = own.iloc[0]
            column.suptitle(
                f"{facet}\nblock {one['block']}, σ = {one['sigma']:g}\n"
                f"{one['n_pairs']:,} pairs, {one['n_prompts']:,} prompts",
                fontsize=8.5,
            )
            top, bottom = column.subfigures(2, 1, height_ratios=[2.75 * len(selections), 0.6])
            cells = top.subfigures(len(selections), across, squeeze=False)
            for line, selection in enumerate(selections):
                pairs = own[own["selection"] == selection].groupby("rank")
                for cell, (_, pair) in zip(cells[line], pairs, strict=False):
                    image = _draw_pair(cell, pair.sort_values("side"), largest)
            bar = bottom.colorbar(image, cax=bottom.add_axes((0.12, 0.75, 0.76, 0.18)), orientation="horizontal")
            bar.ax.tick_params(labelsize=8)
            bar.set_label("token score, centred (logits)", fontsize=8)
        figure.supxlabel(textwrap.fill(CAPTION, int(figure.get_figwidth() * 15)), fontsize=8.5, color="#444444")
        models = ", ".join(str(model) for model in table["model"].dropna().unique())
        figure.suptitle(f"Where do margins come from in {models or 'the backbone'}?", fontsize=12)
    return figure


def _draw_pair(cell, pair: pd.DataFrame, largest: float) -> AxesImage:
    one = pair.iloc[0]
    prompt = textwrap.fill(textwrap.shorten(str(one["prompt"]), 78, placeholder=" …"), 28)
    cell.suptitle(f"{_SAID[one['selection']]}, {one['margin']:+.2f}\n{prompt}", fontsize=7.5)
    axes = cell.subplots(2, 2, gridspec_kw={"hspace": 0.02})
    for place, (_, item) in enumerate(pair.iterrows()):
        picture = axes[0, place]
        picture.imshow(picture_of(item), interpolation="nearest")
        _bare(picture)
        for spine in picture.spines.values():
            spine.set(visible=True, linewidth=3.0 if item["chosen"] else 0.5,
                      color="#009E73" if item["chosen"] else "0.7")  # fmt: skip
        if item["chosen"]:
            picture.set_title("chosen", fontsize=7, color="#00654a", pad=2)
        image = plot_token_map(item["map"], largest=largest, ax=axes[1, place])
    return image


def _bare(ax: Axes) -> None:
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
