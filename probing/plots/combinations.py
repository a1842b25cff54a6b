"""Probes on two blocks and more: the heatmap of pairs, and the gain of each head over the best single block."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probing.plots import style
from probing.plots.curves import best_curve, describe_curve, describe_models, facet_rows, facets_in, panel_title
from probing.plots.grid import facet_grid
from probing.plots.heatmap import accuracy_bar, block_ticks, draw_heatmap, limits_of
from probing.result_tables import DECIDED

CAPTION = (
    "Left: accuracy of a probe on two blocks side by side, in percent; on the diagonal one block alone. Framed: "
    "chosen on training pairs. Lines: borders of stages, B1, B2, … from shallow to deep. Right: accuracy minus that "
    "of the best single block, in brackets the number of channels of the head; bars: 95% paired over prompts. Filled: "
    "p ≤ 0.05 after Holm's correction."
)
_STYLES = {
    "full": style.Style("#0072B2", "o", "blocks side by side"),
    "pca": style.Style("#009E73", "s", "reduced to one block's width (principal components)"),
    "random": style.Style("#CC79A7", "^", "projected to one block's width (random numbers)"),
    "widened": style.Style("#D55E00", "D", "one block at that width (random features)"),
}
_KINDS = {"pair": "two blocks", "subset": "a block a stage", "greedy": "greedy"}


def plot_pairs_of_blocks(
    table: pd.DataFrame, *, facet: str, ax: Axes | None = None, limits: tuple[float, float] | None = None
) -> Axes:
    """Draw the heatmap of all two-block heads of a facet's best curve, single blocks on its diagonal.

    Args:
        table: Result of :func:`probing.analysis.combinations.combinations`, or its CSV.
        facet: Which facet.
        ax: Axes to draw on; new ones if None.
        limits: Limits of the colour map; those of the facet if None.

    Raises:
        ValueError: The table has no such facet.
    """
    rows = _curve_of(table, facet)
    heads = rows[rows["kind"].isin(["single", "pair"]) & (rows["head"] == "full")]
    single = heads[heads["kind"] == "single"]
    blocks = sorted(single["first"].astype(int))
    index = {block: number for number, block in enumerate(blocks)}
    values = np.full((len(blocks), len(blocks)), np.nan)
    framed = np.zeros(values.shape, dtype=bool)
    for row in heads.to_dict("records"):
        first = index[int(row["first"])]
        second = first if row["kind"] == "single" else index[int(row["second"])]
        cell = max(first, second), min(first, second)
        values[cell], framed[cell] = row["value"], bool(row["chosen"])
    with style.house_style():
        ax = style.new_axes(ax, (5.0, 4.6))
        draw_heatmap(ax, values, limits or limits_of(values), framed=framed)
        block_ticks(ax.xaxis, blocks, "block")
        block_ticks(ax.yaxis, blocks, "other block")
        _draw_borders(ax, single.sort_values("first"))
        ax.set_title(panel_title(facet, describe_curve(single.iloc[0]), single), fontsize=10)
    return ax


def plot_gains(table: pd.DataFrame, *, facet: str, ax: Axes | None = None, legend: bool = True) -> Axes:
    """Draw the gain of every chosen head of a facet's best curve over the best single block.

    Args:
        table: Result of :func:`probing.analysis.combinations.combinations`, or its CSV.
        facet: Which facet.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: The table has no such facet.
    """
    rows = _curve_of(table, facet)
    heads = _chosen_heads(rows).to_dict("records")
    best = rows[(rows["kind"] == "single") & rows["chosen"].astype(bool)].iloc[0]
    with style.house_style():
        ax = style.new_axes(ax, (6.4, 1.6 + 0.34 * len(heads)))
        style.vertical_line(ax, 0)
        for number, row in enumerate(heads):
            values = 100 * row["gain"], 100 * row["gain_low"], 100 * row["gain_high"]
            style.draw_interval(ax, -number, values, _STYLES[row["head"]], filled=row["gain_verdict"] in DECIDED)
        ax.set_yticks(range(0, -len(heads), -1), [_label(row) for row in heads], fontsize=8.5)
        ax.set_ylim(-len(heads) + 0.4, 0.6)
        ax.set_xlabel("gain over the best single block (points)")
        ax.set_title(
            f"best single: block {best['blocks']}, {100 * best['value']:.1f}%\n{best['channels']} channels", fontsize=10
        )
        if legend:
            style.legend_below(ax, style.handles_of(_STYLES, set(rows["head"])), columns=1)
    return ax


def figure_combinations(table: pd.DataFrame) -> Figure:
    """Draw heatmap and gains of every facet, in the curve whose best block is best on training pairs.

    Args:
        table: Result of :func:`probing.analysis.combinations.combinations`, or its CSV.
    """
    facets = facets_in(table)
    shown = pd.concat([_curve_of(table, facet) for facet in facets])
    limits = limits_of(shown.loc[shown["kind"].isin(["single", "pair"]), "value"].to_numpy(dtype=float))
    with facet_grid(
        len(facets),
        2,
        (11.0, 4.3 * len(facets) + 1.5),
        title=f"Probes on several blocks of {describe_models(table)}",
        caption=CAPTION,
        handles=style.handles_of(_STYLES, set(table["head"])),
        legend_columns=2,
        width_ratios=[1.15, 1.0],
    ) as (figure, grid):
        for (heatmap, gains), facet in zip(grid, facets, strict=True):
            plot_pairs_of_blocks(table, facet=facet, ax=heatmap, limits=limits)
            plot_gains(table, facet=facet, ax=gains, legend=False)
        accuracy_bar(list(grid[:, 0]), limits)
    return figure


def _curve_of(table: pd.DataFrame, facet: str) -> pd.DataFrame:
    rows = facet_rows(table, facet)
    return best_curve(rows, rows[(rows["kind"] == "single") & (rows["head"] == "full")])


def _chosen_heads(rows: pd.DataFrame) -> pd.DataFrame:
    """Select the chosen head of each kind, the head on all stages, their matched forms, and the mix."""
    full = rows[rows["head"] == "full"]
    chosen = full[full["chosen"].astype(bool)]
    largest = full[full["kind"] == "subset"].sort_values("channels").tail(1)
    parts = [chosen[chosen["kind"] == "pair"], largest, chosen[chosen["kind"] == "greedy"]]
    selected = []
    for part in parts:
        matched = rows[rows["blocks"].isin(part["blocks"]) & rows["kind"].isin(part["kind"])]
        selected += [part, *(matched[matched["head"] == head] for head in ("pca", "random"))]
    selected += [rows[rows["head"] == "widened"].sort_values("channels"), full[full["kind"] == "mix"]]
    # A set of blocks may be the best of several kinds: it is one head, and one row.
    return pd.concat(selected).drop_duplicates(["head", "blocks", "channels"])


def _label(row: dict[Any, Any]) -> str:
    if row["head"] == "widened":
        return f"block {row['blocks']} widened ({row['channels']})"
    if row["kind"] == "mix":
        return f"mix of all blocks ({row['channels']})"
    form = {"pca": ", reduced", "random": ", projected"}.get(row["head"], "")
    return f"{_KINDS[row['kind']]}: {row['blocks']}{form} ({row['channels']})"


def _draw_borders(ax: Axes, single: pd.DataFrame) -> None:
    names = single["stages"].tolist()
    for number in range(1, len(names)):
        if names[number] != names[number - 1]:
            for line in (ax.axhline, ax.axvline):
                line(number - 0.5, color="black", linewidth=1.0, linestyle=(0, (3, 2)))
    for name in dict.fromkeys(names):
        columns = [number for number, stage in enumerate(names) if stage == name]
        # The triangle above the diagonal is empty: there is room for names.
        ax.text(float(np.mean(columns)), -0.75, name, ha="center", va="bottom", fontsize=8.5, color="#333333")
    ax.set_ylim(len(names) - 0.5, -1.6)
