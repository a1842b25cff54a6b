"""Policies along their training: the optimised reward, the judge, the watch, and pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from probing.plots import style
from probing.plots.grid import facet_grid
from probing.plots.pictures import figure_pictures
from probing.plots.text import shown_name
from probing.plots.tokens import picture_of

CAPTION = (
    "Change against the start of the training, same captions and noise, mean over seeds. Bands: 95% over captions. "
    "Bars: single seeds, least to most. An axis with a change above 5 (50 points) is logarithmic beyond 1 (10 points)."
)
WATCH_CAPTION = (
    "Mean change of the optimised reward and of heads that are not optimised, in standard deviations of the first "
    "pictures; thin: single seeds. Below, a line a seed: squares where the heads of an ensemble disagree, triangles "
    "where a facet head fell, circles where the features have drifted, crosses where the judge fell (Holm's p ≤ 0.05). "
    "An axis with a change above 5 is logarithmic beyond 1."
)
_ROWS = {
    "optimised": (1.0, "optimised reward (SD)", style.Style(style.TRAINED, "o")),
    "judge": (1.0, "true reward, by the judge", style.Style("#D55E00", "s")),
    "alignment": (100.0, "attributes right (points)", style.Style("#009E73", "^")),
    "fidelity": (100.0, "judged fidelity (points)", style.Style("#CC79A7", "D")),
}
"""Factor, label and style of each metric that is drawn."""
NAMES = {
    "latent": "latent reward, frozen",
    "adapted": "latent reward, adapted",
    "rival": "baseline reward model",
    "judge": "the judge itself",
    "before": "before",
}
_SIGNALS = {
    "optimised": style.Style("#222222", "", "optimised reward"),
    "facet_alignment": style.Style("#009E73", "", "alignment head"),
    "facet_quality": style.Style("#CC79A7", "", "quality head"),
}
_FLAGS = (
    ("fell", "x", "#D55E00"),
    ("heads_disagree", "s", "#0072B2"),
    ("facet_fell", "^", "#009E73"),
    ("drifted", "o", "#222222"),
)
"""Columns of checks, with marker and colour."""
_LOWEST, _LINE = 0.035, 0.055
"""Height of the lowest line of flags, and the distance of two, in shares of the axes."""
_WIDE = 5.0
"""An axis with a change of more than so many units is logarithmic beyond one unit."""


def plot_policy(table: pd.DataFrame, *, reward: str, metric: str, ax: Axes | None = None) -> Axes:
    """Draw the change of one score along the trainings on one reward; a second model is hollow and dashed.

    Args:
        table: ``policy.csv``.
        reward: Optimised reward.
        metric: Score.
        ax: Axes to draw on; new ones if None.

    Raises:
        ValueError: The table has no such reward or score.
    """
    rows = table[(table["reward"] == reward) & (table["metric"] == metric)].sort_values("update")
    if rows.empty:
        known = (", ".join(table[column].unique()) for column in ("reward", "metric"))
        raise ValueError(f"Got {reward!r} and {metric!r}, expected one of {next(known)}, and one of {next(known)}.")
    factor, label, one = _ROWS.get(metric, (1.0, metric, style.Style(style.TRAINED, "o")))
    with style.house_style():
        ax = style.new_axes(ax, (4.2, 3.0))
        ax.axhline(0, color=style.REFERENCE, linewidth=1.0, zorder=1)
        for number, (_, of_model) in enumerate(rows.groupby("model", sort=False)):
            band = of_model[["change", "ci_low", "ci_high", "least", "most"]].mul(factor)
            band, hollow = band.rename(columns={"change": "value"}), number > 0
            style.draw_band(ax, of_model["update"], band, one, hollow=hollow, alpha=0.08 if hollow else 0.18, zorder=3)
            ax.vlines(of_model["update"], band["least"], band["most"], color=one.colour, linewidth=0.8)
        drawn = table.loc[table["metric"] == metric, ["least", "most"]].to_numpy(dtype=float)
        _scale(ax, factor * drawn, 1.0 if factor == 1.0 else 10.0)
        ax.set_xlabel("update")
        ax.set_ylabel(label)
    return ax


def figure_policy(table: pd.DataFrame) -> Figure:
    """Draw the optimised reward, the true one, alignment and fidelity (rows) for each reward (columns).

    Args:
        table: ``policy.csv``.

    Raises:
        ValueError: The table has more than two models, which could not be told apart.
    """
    rewards, models = (list(dict.fromkeys(table[column])) for column in ("reward", "model"))
    if len(models) > 2:
        raise ValueError(f"Got the models {', '.join(models)}, expected at most two; draw them in several figures.")
    handles = [
        Line2D(
            [],
            [],
            color="#222222",
            marker="o",
            linestyle=style.DASHED if number else "-",
            label=shown_name(model),
            markerfacecolor="white" if number else "#222222",
        )
        for number, model in enumerate(models)
    ]
    with facet_grid(
        len(_ROWS),
        len(rewards),
        (max(2.9 * len(rewards), 5.6), 2.1 * len(_ROWS) + 1.2),
        title=f"Policies trained on rewards: {_names(table)}",
        caption=CAPTION,
        handles=handles if len(models) > 1 else (),
        legend_columns=2,
        outer_labels=True,
        sharex=True,
        sharey="row",
    ) as (figure, grid):
        for axes, metric in zip(grid, _ROWS, strict=True):
            for ax, reward in zip(axes, rewards, strict=True):
                plot_policy(table, reward=reward, metric=metric, ax=ax)
                if metric == "optimised":
                    ax.set_title(f"optimised:\n{NAMES.get(reward, reward)}", fontsize=10)
    return figure


def plot_hacking_watch(table: pd.DataFrame, *, reward: str, ax: Axes | None = None) -> Axes:
    """Draw the scores of the watch's heads along the trainings on one reward.

    Args:
        table: ``hacking_watch.csv``, of one model.
        reward: Optimised reward.
        ax: Axes to draw on; new ones if None.

    Raises:
        ValueError: The table has no such reward.
    """
    rows = table[table["reward"] == reward]
    if rows.empty:
        raise ValueError(f"Got reward {reward!r}, expected one of {', '.join(table['reward'].unique())}.")
    with style.house_style():
        ax = style.new_axes(ax, (4.2, 3.2))
        ax.axhline(0, color=style.REFERENCE, linewidth=1.0, zorder=1)
        for name, one in _SIGNALS.items():
            if name not in rows:
                continue
            for _, of_seed in rows.groupby("seed"):
                ax.plot([0, *of_seed["update"]], [0, *of_seed[name]], color=one.colour, linewidth=0.8, alpha=0.6)
            mean = rows.groupby("update")[name].mean()
            ax.plot([0, *mean.index], [0, *mean], color=one.colour, linewidth=2.0)
        for number, seed in enumerate(sorted(rows["seed"].unique(), reverse=True)):
            of_seed = rows[rows["seed"] == seed]
            for flag, marker, colour in _FLAGS:
                at: Any = of_seed.loc[of_seed[flag], "update"]
                # Below all curves: heights are shares of the axes.
                y, shares = [_LOWEST + _LINE * number] * len(at), ax.get_xaxis_transform()
                ax.plot(at, y, marker, color=colour, markersize=6, markerfacecolor="none", transform=shares)
        drawn = table[[name for name in _SIGNALS if name in table]].to_numpy(dtype=float)
        _scale(ax, drawn, 1.0)
        # In heights of the axes, which may be logarithmic.
        heights = ax.yaxis.get_transform()
        low, high = heights.transform(np.array([min(0.0, drawn.min()), max(0.0, drawn.max())]))
        below = _LOWEST + _LINE * table["seed"].nunique()
        ends = np.array([low - (high - low) * below / (0.97 - below), high + 0.03 * (high - low)])
        ax.set_ylim(*heights.inverted().transform(ends))
        ax.set_xlabel("update")
        ax.set_ylabel("change (SD)")
        ax.set_title(f"optimised:\n{NAMES.get(reward, reward)}", fontsize=10)
    return ax


def figure_hacking_watch(table: pd.DataFrame) -> Figure:
    """Draw the watch of every reward's trainings.

    Args:
        table: ``hacking_watch.csv``.
    """
    rewards, models = (list(dict.fromkeys(table[column])) for column in ("reward", "model"))
    with facet_grid(
        len(models),
        len(rewards),
        (max(3.0 * len(rewards), 5.6), 3.2 * len(models) + 1.4),
        title=f"Watching for reward hacking: {_names(table)}",
        caption=WATCH_CAPTION,
        handles=style.handles_of(_SIGNALS, set(table.columns)),
        legend_columns=3,
        outer_labels=True,
        sharex=True,
        sharey="row",
    ) as (figure, grid):
        for axes, model in zip(grid, models, strict=True):
            for ax, reward in zip(axes, rewards, strict=True):
                plot_hacking_watch(table[table["model"] == model], reward=reward, ax=ax)
                if len(models) > 1:
                    ax.set_ylabel(f"{shown_name(model)}\nchange (SD)")
    return figure


def figure_policy_samples(table: pd.DataFrame) -> Figure:
    """Draw pictures of the same captions and noise before the trainings (first row) and after them.

    Args:
        table: ``policy_samples.csv``.
    """
    rows, captions = {}, []
    for (model, reward), part in table.groupby(["model", "reward"], sort=False):
        name = NAMES.get(str(reward), str(reward))
        of_model = f"{shown_name(str(model))}: " if table["model"].nunique() > 1 else ""
        rows[f"{of_model}{name}"] = [picture_of(row) for _, row in part.iterrows()]
        captions = list(part["prompt"])
    return figure_pictures(
        rows,
        captions,
        title=f"Pictures after training on each reward: {_names(table)}",
        caption="Same captions and noise in every row; the first seed of each reward.",
    )


def _scale(ax: Axes, changes: Float[np.ndarray, "..."], unit: float) -> None:
    """Make an axis logarithmic beyond a unit where small changes could not be seen beside the largest."""
    if np.nanmax(np.abs(changes)) <= _WIDE * unit:
        return
    ax.set_yscale("symlog", linthresh=unit, linscale=1.5)
    sizes = unit * np.array([1, 3, 10, 30, 100])
    ticks = np.concatenate([-sizes[::-1], [0.0], sizes])
    shown = (ticks >= min(np.nanmin(changes), -unit)) & (ticks <= max(np.nanmax(changes), unit))
    ax.yaxis.set_major_locator(FixedLocator(ticks[shown]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _names(table: pd.DataFrame) -> str:
    return ", ".join(shown_name(model) for model in dict.fromkeys(table["model"]))
