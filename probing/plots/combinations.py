"""Two blocks and more: the heatmap of pairs, and what each head gains over the best single block."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from probing.plots import style
from probing.plots.heatmap import accuracy_bar, draw_heatmap, limits_of
from probing.plots.series import best_series, say_counts, say_series
from probing.plots.text import shown_name, shown_names
from probing.statistics import LEVEL

CAPTION = (
    "Left: accuracy of a probe on two blocks side by side, in percent; on the diagonal one block alone. Framed: chosen "
    "on training pairs. Lines: borders of stages. Right: accuracy minus that of the best single block, in brackets the "
    "channels that the head reads; bars: 95% paired cluster bootstrap over prompts. Filled: p ≤ 0.05 after Holm's "
    "correction."
)
_FORMS = {
    "full": ("#0072B2", "o", "blocks side by side"),
    "pca": ("#009E73", "s", "reduced to one block's width (principal components)"),
    "random": ("#CC79A7", "^", "projected to one block's width (random numbers)"),
    "widened": ("#D55E00", "D", "one block at that width (random features)"),
}
_KINDS = {"pair": "two blocks", "subset": "a block a stage", "greedy": "greedy", "mix": "mix of all"}


def plot_pairs_of_blocks(
    table: pd.DataFrame, *, facet: str, ax: Axes | None = None, limits: tuple[float, float] | None = None
) -> Axes:
    """Draw the heatmap of all two-block heads of a facet's best series, single blocks on its diagonal.

    Args:
        table: Of :func:`probing.analysis.combinations.combinations`, or its CSV.
        facet: Which facet.
        ax: Axes to draw on; new ones if None.
        limits: Of the colour map; the facet's own if None.

    Raises:
        ValueError: The table has no such facet.
    """
    rows = _series_of(table, facet)
    single = rows[(rows["kind"] == "single") & (rows["head"] == "full")]
    pairs = rows[(rows["kind"] == "pair") & (rows["head"] == "full")]
    blocks = sorted(single["first"].astype(int))
    at = {block: place for place, block in enumerate(blocks)}
    values = np.full((len(blocks), len(blocks)), np.nan)
    framed = np.zeros(values.shape, dtype=bool)
    for row in pd.concat([single, pairs]).to_dict("records"):
        one = at[int(row["first"])]
        two = one if row["kind"] == "single" else at[int(row["second"])]
        values[max(one, two), min(one, two)] = row["value"]
        framed[max(one, two), min(one, two)] = bool(row["chosen"])
    with style.house_style():
        ax = style.new_axes(ax, (5.0, 4.6))
        limits = limits or limits_of(values)
        draw_heatmap(ax, values, limits, outlined=framed)
        shown = blocks if len(blocks) <= 14 else blocks[:: len(blocks) // 8]
        for axis, label in ((ax.xaxis, "block"), (ax.yaxis, "other block")):
            axis.set_ticks([at[block] for block in shown], [str(block) for block in shown])
            axis.set_label_text(label)
        _draw_borders(ax, single, at)
        any_cell = single.iloc[0]
        ax.set_title(f"{shown_name(facet)}: {say_series(any_cell)}\n{say_counts(single)}", fontsize=10)
    return ax


def plot_gains(table: pd.DataFrame, *, facet: str, ax: Axes | None = None, legend: bool = True) -> Axes:
    """Draw what every chosen head of a facet's best series gains over the best single block.

    Args:
        table: Of :func:`probing.analysis.combinations.combinations`, or its CSV.
        facet: Which facet.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend below the axes.

    Raises:
        ValueError: The table has no such facet.
    """
    rows = _series_of(table, facet)
    shown = _shown(rows)
    best = rows[(rows["kind"] == "single") & rows["chosen"].astype(bool)].iloc[0]
    with style.house_style():
        ax = style.new_axes(ax, (6.4, 1.6 + 0.34 * len(shown)))
        ax.axvline(0, color=style.REFERENCE, linewidth=1.0, zorder=1)
        labels = []
        for place, row in enumerate(shown.to_dict("records")):
            colour, marker, _ = _FORMS[row["head"]]
            ax.plot([100 * row["gain_low"], 100 * row["gain_high"]], [-place, -place], color=colour, linewidth=1.8)
            filled = row["gain_p_value_holm"] <= LEVEL
            ax.plot(
                100 * row["gain"],
                -place,
                marker,
                color=colour,
                markersize=6,
                markerfacecolor=colour if filled else "white",
                zorder=3,
            )
            labels.append(_label(row))
        ax.set_yticks(range(0, -len(labels), -1), labels, fontsize=8.5)
        ax.set_ylim(-len(labels) + 0.4, 0.6)
        ax.set_xlabel("gain over the best single block (points)")
        ax.set_title(
            f"best single: block {best['blocks']}, {100 * best['value']:.1f}%\n{best['channels']} channels", fontsize=10
        )
        if legend:
            style.legend_below(ax, _handles(rows), columns=1)
    return ax


def figure_combinations(table: pd.DataFrame) -> Figure:
    """Draw heatmap and gains of every facet, in the series whose best block is best on training pairs.

    Args:
        table: Of :func:`probing.analysis.combinations.combinations`, or its CSV.
    """
    facets = sorted(table["facet"].unique())
    with style.house_style():
        figure = Figure(figsize=(11.0, 4.3 * len(facets) + 1.5), layout="constrained")
        grid = figure.subplots(len(facets), 2, squeeze=False, width_ratios=[1.15, 1.0])
        for row, facet in enumerate(facets):
            rows = _series_of(table, facet)
            limits = limits_of(rows.loc[rows["kind"].isin(["single", "pair"]), "value"].to_numpy(dtype=float))
            plot_pairs_of_blocks(table, facet=facet, ax=grid[row, 0], limits=limits)
            accuracy_bar([grid[row, 0]], limits)
            plot_gains(table, facet=facet, ax=grid[row, 1], legend=False)
        style.caption_and_legend(figure, CAPTION, _handles(table), columns=2)
        models = shown_names(table["model"])
        figure.suptitle(f"What several blocks of {models or 'the backbone'} know together", fontsize=12)
    return figure


def _series_of(table: pd.DataFrame, facet: str) -> pd.DataFrame:
    rows = table[table["facet"] == facet]
    if rows.empty:
        raise ValueError(f"Got facet {facet!r}, expected one of {', '.join(sorted(table['facet'].unique()))}.")
    single = rows[(rows["kind"] == "single") & (rows["head"] == "full")]
    return best_series(rows, single)


def _shown(rows: pd.DataFrame) -> pd.DataFrame:
    """Pick the chosen of each kind, the head on all stages, their matched forms, and the mix."""
    full = rows[rows["head"] == "full"]
    stages = full[full["kind"] == "subset"]
    whole = stages[stages["channels"] == stages["channels"].max()]
    chosen = full[full["kind"].isin(["pair", "greedy"]) & full["chosen"].astype(bool)]
    parts = [chosen[chosen["kind"] == "pair"], whole, chosen[chosen["kind"] == "greedy"]]
    picked = []
    for part in parts:
        picked.append(part)
        for head in ("pca", "random"):
            matched = rows[(rows["head"] == head) & rows["blocks"].isin(part["blocks"])]
            picked.append(matched)
    picked += [rows[rows["head"] == "widened"].sort_values("channels"), full[full["kind"] == "mix"]]
    return pd.concat(picked)


def _label(row: dict) -> str:
    if row["head"] == "widened":
        return f"block {row['blocks']} widened ({row['channels']})"
    if row["kind"] == "mix":
        return f"mix of all blocks ({row['channels']})"
    form = {"pca": ", reduced", "random": ", projected"}.get(row["head"], "")
    return f"{_KINDS[row['kind']]}: {row['blocks']}{form} ({row['channels']})"


def _draw_borders(ax: Axes, single: pd.DataFrame, at: dict[int, int]) -> None:
    stages = single.sort_values("first")
    names, blocks = stages["stages"].tolist(), stages["first"].astype(int).tolist()
    for place in range(1, len(blocks)):
        if names[place] != names[place - 1]:
            where = at[blocks[place]] - 0.5
            for line in (ax.axhline, ax.axvline):
                line(where, color="black", linewidth=1.0, linestyle=(0, (3, 2)))
    for name in dict.fromkeys(names):
        inside = [at[block] for block, own in zip(blocks, names, strict=True) if own == name]
        # Above the diagonal nothing is drawn, so names stand there.
        ax.text(float(np.mean(inside)), -0.75, name, ha="center", va="bottom", fontsize=8.5, color="#333333")
    ax.set_ylim(len(blocks) - 0.5, -1.6)


def _handles(table: pd.DataFrame) -> list[Line2D]:
    return [
        Line2D([], [], color=colour, marker=marker, label=said)
        for head, (colour, marker, said) in _FORMS.items()
        if head in set(table["head"])
    ]
