"""Token maps against people's heat maps: agreement with intervals, and pictures from the best to the worst."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from probing.plots import style
from probing.plots.curves import describe_models, facets_in
from probing.plots.grid import facet_grid
from probing.plots.text import shown_name
from probing.plots.tokens import hide_axes, picture_of, plot_token_map, scores_of
from probing.result_tables import DECIDED

CAPTION = (
    "Area under the ROC curve within a picture: do negative token scores pick the tokens that are marked? Mean over "
    "pictures. Maps are less their mean by position. Bars: 95% over prompts. At the right: the trained map less the "
    "row, or less chance, paired over prompts; bold where p ≤ 0.05 after Holm's correction."
)
EXAMPLES_CAPTION = (
    "Evenly spaced from the best agreement to the worst. Left: the picture; middle: where it is at fault; right: token "
    "scores less their mean by position, red where the reward is lowered."
)
_NAMES = {
    "trained": "trained",
    "random-init": "random-initialised",
    "shuffled": "another picture's heat map",
    "edges": "edges of the picture",
    "centre": "nearness to the centre",
}
_STYLES = {
    "trained": style.Style(style.TRAINED, "o", "trained"),
    "random-init": style.Style(style.RANDOM_INIT, "s", "random-initialised"),
    "shuffled": style.Style("#767676", "D", "another picture's heat map"),
    "edges": style.Style(style.LATENTS, "^", "edges"),
    "centre": style.Style("#CC79A7", "v", "centre"),
}
_PICTURE = 0.9


def plot_heat_maps(table: pd.DataFrame, *, facet: str, kind: str, ax: Axes | None = None, names: bool = True) -> Axes:
    """Draw the areas under the curve of one facet's map and of its controls for one kind of heat map.

    Args:
        table: Result of ``probing.heat_maps``, or its CSV.
        facet: Which facet.
        kind: Which kind of heat map.
        ax: Axes to draw on; new ones if None.
        names: Whether to name the rows.

    Raises:
        ValueError: The table has no such facet and kind.
    """
    rows = table[(table["facet"] == facet) & (table["kind"] == kind) & (table["metric"] == "auc")]
    if rows.empty:
        raise ValueError(f"Got facet {facet!r} and kind {kind!r}, which the table does not have.")
    with style.house_style():
        ax = style.new_axes(ax, (5.0, 2.6))
        style.vertical_line(ax, 0.5, "chance", 0.62)
        for number, row in enumerate(rows.to_dict("records")):
            values = (row["value"], row["ci_low"], row["ci_high"])
            style.draw_interval(ax, -number, values, _STYLES[row["control"]])
            text = f"{row['difference']:+.2f} [{row['difference_low']:+.2f}, {row['difference_high']:+.2f}]"
            style.note_beside(ax, -number, text, bold=row["verdict"] in DECIDED)
        ax.set_yticks(range(0, -len(rows), -1), [_NAMES[name] if names else "" for name in rows["control"]], fontsize=9)
        ax.set_ylim(-len(rows) + 0.4, 0.62)
        ax.set_xlabel("area under the ROC curve")
        one = rows.iloc[0]
        ax.set_title(
            f"{shown_name(facet)} on {kind}: block {one['block']}, σ = {one['sigma']:g}\n{one['n_items']:,} pictures, "
            f"{one['n_prompts']:,} prompts",
            fontsize=9.5,
            pad=14,
        )
    return ax


def figure_heat_maps(table: pd.DataFrame) -> Figure:
    """Draw every facet (rows) on every kind of heat map (columns).

    Args:
        table: Result of ``probing.heat_maps``, or its CSV.
    """
    facets, kinds = facets_in(table), list(dict.fromkeys(table["kind"]))
    with facet_grid(
        len(facets),
        len(kinds),
        (4.4 * len(kinds) + 1.6, 2.35 * len(facets) + 1.5),
        title=f"Token maps and heat maps of faults: {describe_models(table)}",
        caption=CAPTION,
        sharex=True,
    ) as (figure, grid):
        for axes, facet in zip(grid, facets, strict=True):
            for number, (ax, kind) in enumerate(zip(axes, kinds, strict=True)):
                plot_heat_maps(table, facet=facet, kind=kind, ax=ax, names=number == 0)
    return figure


def figure_heat_map_examples(table: pd.DataFrame) -> Figure:
    """Draw pictures, what is at fault in them and their token maps: a row a facet and kind.

    Args:
        table: Examples of ``probing.heat_maps``, or their CSV.
    """
    groups = list(table.groupby(["facet", "kind"], sort=False))
    across = max(len(rows) for _, rows in groups)
    with facet_grid(
        len(groups),
        3 * across,
        (3 * _PICTURE * across + 0.6, (_PICTURE + 0.45) * len(groups) + 1.1),
        title=f"Pictures, their faults and their token maps: {describe_models(table)}",
        caption=EXAMPLES_CAPTION,
    ) as (figure, grid):
        for axes, ((facet, kind), rows) in zip(grid, groups, strict=True):
            scores = np.concatenate([scores_of(row).ravel() for _, row in rows.iterrows()])
            largest = float(np.quantile(np.abs(scores), 0.99)) or 1.0
            for ax in axes:
                hide_axes(ax)
            for number, (_, row) in enumerate(rows.iterrows()):
                picture, truth, map_ = axes[3 * number : 3 * number + 3]
                picture.imshow(picture_of(row))
                marked = np.array(str(row["truth"]).split(), dtype=float).reshape(int(row["rows"]), int(row["columns"]))
                truth.spines[:].set(visible=True, color="#BBBBBB", linewidth=0.6)
                truth.imshow(marked, cmap="Greys", vmin=0, vmax=max(float(marked.max()), 1e-12))
                plot_token_map(-scores_of(row), largest=largest, ax=map_)
                truth.set_title(f"area {row['auc']:.2f}", fontsize=8, pad=3)
                if number == 0:
                    picture.set_title(f"{shown_name(facet)} on {kind}", fontsize=8, loc="left", pad=14)
    return figure


def figure_faults(
    items: Sequence[str],
    kinds: Sequence[str],
    open_image: Callable[[str], Image.Image],
    heat_map: Callable[[str, str], np.ndarray | None],
    *,
    count: int = 4,
) -> Figure:
    """Draw the first pictures of each kind of heat map (rows), each beside its map.

    Args:
        items: Items, in the order in which they are looked at.
        kinds: Kinds of heat map.
        open_image: Opens the picture of an item.
        heat_map: Opens the heat map of an item and a kind; None where there is none.
        count: Pictures of each kind.
    """
    with facet_grid(
        len(kinds),
        2 * count,
        (2 * _PICTURE * count + 0.4, (_PICTURE + 0.3) * len(kinds) + 0.9),
        title="Pictures and their faults",
        caption="At the right of each picture: where it is at fault.",
    ) as (figure, grid):
        for axes, kind in zip(grid, kinds, strict=True):
            found = ((item, heat_map(item, kind)) for item in items)
            faults = ((item, marked) for item, marked in found if marked is not None and marked.max() > 0)
            for ax in axes:
                hide_axes(ax)
            for number, (item, marked) in enumerate(islice(faults, count)):
                axes[2 * number].imshow(open_image(item))
                axes[2 * number + 1].imshow(marked, cmap="Greys")
                axes[2 * number + 1].spines[:].set(visible=True, color="#BBBBBB", linewidth=0.6)
                axes[2 * number].set_title(kind if number == 0 else "", fontsize=8.5, loc="left")
    return figure
