"""Reward curves: pair accuracy against block, with every control."""

from __future__ import annotations

from itertools import product
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from probing.plots import style
from probing.plots.curves import describe_models, describe_tokens, facets_in, panel_title, panels_of
from probing.plots.grid import facet_grid
from probing.plots.stages import mark_stages
from probing.plots.text import shown_name
from probing.result_tables import published_rows

CAPTION = (
    "Bands: 95% over prompts. Points: the measured accuracies on test pairs. Filled: trained. Hollow, dashed: "
    "random-initialised, in the colour of its σ, with bars from the least to the largest draw of weights. Grey band: "
    "95% of single shuffles of the training choices."
)
_HEADLINE_CAPTION = {
    "trained": "Pair accuracy of a linear probe on held-out prompts; bands: 95% over prompts.",
    "random-init": " Hollow, dashed: the same architecture with random weights.",
    "shuffled": " Grey band: 95% of single shuffles of the training choices.",
}
"""What the caption says of each control that is drawn."""
_REFERENCES = " Finely dotted, with its interval: other rewards on the same pairs."
_BEST = " Ticks along the lower edge: blocks that may be the best of their curve (95% confidence set)."
_STAGES = " B1, B2, …: stages, runs of similar blocks (image tokens, lowest σ); every second one is shaded."
_SEAMS = " Dashed upright: from there on blocks of another kind, by the name of their list."
_REFERENCE_LINE = (0, (1, 1))
_REFERENCE_COLOURS = ("#CC79A7", "#B8860B", "#56B4E9")


def plot_reward_curve(
    table: pd.DataFrame,
    *,
    facet: str,
    stream: str = "image",
    reduction: str | None = None,
    ax: Axes | None = None,
    legend: bool = True,
    depth: bool = True,
) -> Axes:
    """Draw one facet's reward curves in one stream, a curve a noise level.

    Args:
        table: Result of :func:`probing.analysis.reward_curve`, or its CSV.
        facet: Which facet.
        stream: ``image`` or ``text``.
        reduction: Which reduction; the first mean of the stream if None.
        ax: Axes to draw on; new ones if None.
        legend: Whether to add a legend below the axes.
        depth: Whether to mark depth on the upper edge.

    Raises:
        ValueError: The table has no such trained cells.
    """
    if reduction is None:
        reduction = next((name for shown, name in panels_of(_trained(table)) if shown == stream), None)
    rows = table[table["facet"] == facet]
    cells = rows[(rows["stream"] == stream) & (rows["reduction"] == reduction)]
    trained = _trained(cells)
    if trained.empty:
        pairs = _trained(table)[["facet", "stream"]].drop_duplicates().sort_values(["facet", "stream"])
        have = ", ".join(f"{name} in {shown}" for name, shown in pairs.to_numpy())
        raise ValueError(f"Got facet {facet!r} in stream {stream!r}, expected trained cells of one of: {have}.")
    styles = style.sigma_styles(_trained(table)["sigma"].tolist())
    with style.house_style():
        ax = style.new_axes(ax, (5.8, 4.6))
        _draw_shuffled(ax, cells[cells["control"] == "shuffled"])
        for sigma, part in cells[cells["control"] == "random-init"].groupby("sigma"):
            _draw_curve(ax, part, styles.get(sigma, style.Style(style.RANDOM_INIT, ".")))
        for sigma, part in trained.groupby("sigma"):
            _draw_curve(ax, part, styles[sigma])
        _draw_latents(ax, rows[rows["control"] == "latents"], str(reduction))
        _draw_references(ax, rows[rows["control"] == "reference"])
        _draw_published(ax, table, trained, stream)
        _draw_stages(ax, trained)
        _draw_seams(ax, trained)
        _draw_best(ax, trained, styles)
        style.accuracy_axis(ax, trained["ceiling"].iloc[0])
        last = trained.iloc[-1]
        style.block_axis(ax, round((last["block"] + 1) / last["depth"]) if depth else None)
        ax.set_title(panel_title(facet, describe_tokens(stream, reduction), trained, between=", "), fontsize=10)
        if legend:
            style.legend_below(ax, _handles(table), columns=2)
    return ax


def figure_reward_curves(table: pd.DataFrame) -> Figure:
    """Draw every facet (rows) in every stream (columns), with one legend and a caption.

    Args:
        table: Result of :func:`probing.analysis.reward_curve`, or its CSV.
    """
    facets, panels = facets_in(_trained(table)), panels_of(_trained(table))
    caption = CAPTION + (_BEST if "may_be_best" in table else "")
    caption += _STAGES if "stage" in table and table["stage"].nunique() > 1 else ""
    caption += _SEAMS if "block_list" in table and table["block_list"].nunique() > 1 else ""
    if len(published := published_rows(table)):
        caption += f" Grey crosses: published for this model, on HPDv3 ({published['citation'].iloc[0]})."
    caption += _REFERENCES if (table["control"] == "reference").any() else ""
    with facet_grid(
        len(facets),
        len(panels),
        (max(3.5 * len(panels), 5.5), 2.9 * len(facets) + 1.6),
        title=f"Reward curves of {describe_models(table[table['control'] != 'reference'])}",
        caption=caption,
        handles=_handles(table),
        legend_columns=3 if len(panels) > 1 else 2,
        outer_labels=True,
        sharex=True,
        sharey="row",
    ) as (figure, grid):
        for (row, facet), (column, (stream, reduction)) in product(enumerate(facets), enumerate(panels)):
            plot_reward_curve(
                table,
                facet=facet,
                stream=stream,
                reduction=reduction,
                ax=grid[row, column],
                legend=False,
                depth=row == 0,
            )
    return figure


def figure_headline(table: pd.DataFrame) -> Figure:
    """Draw the curve of every pair together, or of the first facet, in its first stream: one panel, with a caption.

    Args:
        table: Result of :func:`probing.analysis.reward_curve`, or its CSV.
    """
    trained = _trained(table)
    facet, (stream, reduction) = facets_in(trained)[0], panels_of(trained)[0]
    rows = table[table["facet"] == facet]
    with facet_grid(
        1,
        1,
        (7.0, 5.2),
        title=f"Which picture do people prefer? What each block of {describe_models(trained)} tells",
        caption="".join(words for name, words in _HEADLINE_CAPTION.items() if (rows["control"] == name).any())
        + (_REFERENCES if (rows["control"] == "reference").any() else ""),
        handles=_handles(rows),
        legend_columns=2,
    ) as (figure, grid):
        plot_reward_curve(rows, facet=facet, stream=stream, reduction=reduction, ax=grid[0, 0], legend=False)
    return figure


def _handles(table: pd.DataFrame) -> list[Artist]:
    """Make the legend of the curves and controls of a table."""
    styles = style.sigma_styles(_trained(table)["sigma"].tolist())
    handles: list[Artist] = [
        *style.handles_of({sigma: one._replace(label=f"trained, {one.label}") for sigma, one in styles.items()})
    ]
    draws = table["draws"].fillna(0).groupby(table["control"]).max().reindex(["random-init", "shuffled"]).fillna(0)
    random_init = "random-initialised" + (f" (mean of {draws['random-init']:.0f})" if draws["random-init"] > 1 else "")
    controls: dict[str, Artist] = {
        "random-init": Line2D(
            [],
            [],
            color=style.RANDOM_INIT,
            linestyle=style.DASHED,
            linewidth=1.2,
            marker="o",
            markerfacecolor="white",
            label=random_init,
        ),
        "latents": Line2D([], [], color=style.LATENTS, linestyle=":", linewidth=2.2, label="pooled VAE latents"),
        "shuffled": Patch(color=style.SHUFFLED, alpha=0.3, label=f"{draws['shuffled']:.0f} shuffles of the choices"),
    }
    handles += [handle for control, handle in controls.items() if (table["control"] == control).any()]
    for name, colour in _reference_colours(table[table["control"] == "reference"]).items():
        handles.append(Line2D([], [], color=colour, linestyle=_REFERENCE_LINE, linewidth=1.6, label=shown_name(name)))
    return handles


def _trained(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["control"] == "trained"]


def _draw_curve(ax: Axes, part: pd.DataFrame, one: style.Style) -> None:
    part = part.sort_values("block")
    trained = part["control"].iloc[0] == "trained"
    if not trained and (part["draws"].fillna(0) > 1).all():
        ax.vlines(part["block"].astype(float), part["draw_low"], part["draw_high"], color=one.colour, linewidth=0.8)
    style.draw_band(
        ax,
        part["block"].astype(float),
        part,
        one,
        hollow=not trained,
        alpha=0.18 if trained else 0.12,
        linewidth=1.8 if trained else 1.2,
        markersize=(5 if trained else 4) * (1.0 if len(part) <= 16 else 0.6),
        zorder=4 if trained else 3,
    )


def _draw_best(ax: Axes, trained: pd.DataFrame, styles: dict[Any, style.Style]) -> None:
    """Mark the confidence set of each curve's best block, a row of ticks a noise level, in the curve's marker."""
    if "may_be_best" not in trained:
        return
    for row, (sigma, part) in enumerate(trained[trained["may_be_best"] == 1].groupby("sigma")):
        ax.plot(
            part["block"].astype(float),
            [0.015 + 0.035 * row] * len(part),
            styles[sigma].marker,
            color=styles[sigma].colour,
            markersize=3.6,
            transform=ax.get_xaxis_transform(),
            clip_on=False,
            zorder=5,
        )


def _draw_stages(ax: Axes, trained: pd.DataFrame) -> None:
    """Mark the stages of the lowest noise level: they may differ from level to level."""
    if "stage" not in trained or trained["stage"].isna().all():
        return
    named = trained.dropna(subset="stage").astype({"block": int})
    blocks = named[named["sigma"] == named["sigma"].min()].groupby("stage")["block"]
    if blocks.ngroups < 2:
        return
    mark_stages(ax, blocks.agg(first_block="min", last_block="max").reset_index())


def _draw_seams(ax: Axes, trained: pd.DataFrame) -> None:
    """Mark where another list of blocks begins: its blocks are of another kind."""
    if "block_list" not in trained:
        return
    first = trained.astype({"block": int}).groupby("block_list")["block"].min().sort_values()
    for name, block in list(first.items())[1:]:
        ax.axvline(block - 0.5, color="#333333", linewidth=1.0, linestyle=(0, (6, 2)), zorder=1)
        ax.annotate(
            str(name).replace("_", " "),
            (block - 0.5, 0.02),
            xycoords=ax.get_xaxis_transform(),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=7,
            color="#333333",
        )


def _draw_published(ax: Axes, table: pd.DataFrame, trained: pd.DataFrame, stream: str) -> None:
    """Mark the published values of single blocks of this model in this stream."""
    rows = published_rows(table)
    for row in rows[(rows["stream"] == stream) & rows["model"].isin(trained["model"])].to_dict("records"):
        at = row["block"], row["value"]
        ax.plot(*at, "x", color=style.PUBLISHED, markersize=8, markeredgewidth=2.0, zorder=2)
        ax.annotate(
            f"paper {100 * row['value']:.1f}%",
            at,
            xytext=(0, -11),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            color="#666666",
        )


def _draw_shuffled(ax: Axes, part: pd.DataFrame) -> None:
    """Draw where single shuffles of the training choices fall, over all noise levels."""
    if len(part):
        band = part.groupby("block").agg(low=("draw_low", "min"), high=("draw_high", "max"))
        blocks = band.index.to_numpy(dtype=float)
        ax.fill_between(blocks, band["low"], band["high"], color=style.SHUFFLED, alpha=0.3, linewidth=0, zorder=0)


def _draw_latents(ax: Axes, part: pd.DataFrame, reduction: str) -> None:
    """Draw the latents of the same reduction, or else their mean or only one."""
    for name in (reduction, "mean", *part["reduction"]):
        if len(row := part[part["reduction"] == name]):
            _draw_level(ax, row.iloc[0], style.LATENTS, alpha=0.10, linestyle=":", linewidth=2.2)
            return


def _draw_references(ax: Axes, part: pd.DataFrame) -> None:
    for name, colour in _reference_colours(part).items():
        row = part[part["model"] == name].iloc[0]
        _draw_level(ax, row, colour, alpha=0.12, linestyle=_REFERENCE_LINE, linewidth=1.6)


def _draw_level(ax: Axes, row: pd.Series, colour: str, *, alpha: float, **line: Any) -> None:
    """Draw a measurement without a block as a horizontal line with its interval."""
    ax.axhspan(row["ci_low"], row["ci_high"], color=colour, alpha=alpha, linewidth=0, zorder=0)
    ax.axhline(row["value"], color=colour, zorder=2, **line)


def _reference_colours(part: pd.DataFrame) -> dict[str, str]:
    names = sorted(part["model"].unique())
    return {name: _REFERENCE_COLOURS[number % len(_REFERENCE_COLOURS)] for number, name in enumerate(names)}
