"""Figures of the testbed's page, drawn from the content of the cards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probing.testbed.judge import EACH, WHOLE
from probing.testbed.scenes import ATTRIBUTES
from probing.testbed.sizes import is_along, size_of

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#999999")
"""The palette of Okabe and Ito, safe for colour-blind readers."""
Cards = Mapping[str, dict[str, Any]]


def losses_by_size(cards: Cards, trainings: Cards) -> Figure:
    """Plot held-out loss against parameters, one panel for each noise level, with intervals."""
    sigmas = [row["sigma"] for row in next(iter(cards.values()))["held_out_loss"]]
    figure = Figure(figsize=(2.1 * len(sigmas), 2.8), layout="constrained")
    for ax, sigma in zip(np.atleast_1d(figure.subplots(1, len(sigmas))), sigmas, strict=True):
        for number, (name, card) in enumerate(_with_seeds(cards, trainings)):
            row = next(row for row in card["held_out_loss"] if row["sigma"] == sigma)
            further = number >= len(cards)
            ax.errorbar(
                card["parameters"],
                row["loss"],
                row["half_width"],
                fmt="o",
                capsize=3,
                color=_COLOURS[0],
                markerfacecolor="white" if further else None,
            )
            if not further:
                ax.annotate(name, (card["parameters"], row["loss"]), xytext=(5, 5), textcoords="offset points")
        ax.set(xscale="log", title="mean over σ" if sigma is None else f"σ = {sigma:g}")
        _plain(ax)
    figure.supxlabel("parameters of the transformer", fontsize=10)
    figure.supylabel("flow-matching loss", fontsize=10)
    return figure


def judged_by_size(cards: Cards, trainings: Cards) -> Figure:
    """Plot judged accuracy against parameters, one panel for each attribute; a dash marks foreign captions."""
    return _by_size(cards, trainings, "judged", lambda card: _accuracies(card["chance"]), "share of images that match")


def discrimination_by_size(cards: Cards, trainings: Cards) -> Figure:
    """Plot caption discrimination as :func:`judged_by_size` does; a dash marks chance."""
    halves = {**dict.fromkeys(ATTRIBUTES, 0.5), EACH: 0.5}
    return _by_size(cards, trainings, "discriminated", lambda card: halves, "share discriminated")


def _by_size(
    cards: Cards, trainings: Cards, measured: str, chance: Callable[[dict[str, Any]], Mapping[str, float]], label: str
) -> Figure:
    attributes = [row["attribute"] for row in next(iter(cards.values()))[measured]]
    columns = 3
    rows = -(-len(attributes) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    for ax, attribute in zip(axes, attributes, strict=False):
        for number, (name, card) in enumerate(_with_seeds(cards, trainings)):
            row = next((row for row in card[measured] if row["attribute"] == attribute), None)
            if row is None:
                continue
            further = number >= len(cards)
            ends = [[row["accuracy"] - row["ci_low"]], [row["ci_high"] - row["accuracy"]]]
            ax.errorbar(
                card["parameters"],
                row["accuracy"],
                ends,
                fmt="o",
                capsize=3,
                color=_COLOURS[0],
                markerfacecolor="white" if further else None,
            )
            if attribute in chance(card):
                ax.plot(card["parameters"], chance(card)[attribute], "_", color="0.5", markersize=12)
            if not further:
                ax.annotate(name, (card["parameters"], row["accuracy"]), xytext=(5, -10), textcoords="offset points")
        ax.set(xscale="log", title=attribute, ylim=(0, 1.03))
        ax.margins(x=0.12)
        _plain(ax)
    for ax in list(axes)[len(attributes) :]:
        ax.axis("off")
    figure.supxlabel("parameters of the transformer", fontsize=10)
    figure.supylabel(label, fontsize=10)
    return figure


def _accuracies(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {row["attribute"]: row["accuracy"] for row in rows}


def along_training(cards: Cards, checkpoints: Cards) -> Figure:
    """Plot judged accuracy by attribute against the steps of one training."""
    size = size_of(next(iter(checkpoints)))
    points = [*checkpoints.values(), *([cards[size]] if size in cards else [])]
    table = pd.DataFrame([{"steps": card["steps"], **row} for card in points for row in card["judged"]]).sort_values(
        "steps"
    )
    figure = Figure(figsize=(6.5, 3.2), layout="constrained")
    ax = figure.subplots()
    colours: dict[str, str] = dict(zip(ATTRIBUTES, _COLOURS, strict=False)) | {EACH: "0.4", WHOLE: "0.7"}
    for attribute, rows in table.groupby("attribute", sort=False):
        ends = (rows["accuracy"] - rows["ci_low"], rows["ci_high"] - rows["accuracy"])
        style = "-" if attribute in ATTRIBUTES else "--"
        ax.errorbar(
            rows["steps"],
            rows["accuracy"],
            ends,
            marker="o",
            markersize=4,
            capsize=2,
            linestyle=style,
            color=colours[str(attribute)],
            label=attribute,
        )
    ax.set(
        xscale="log", xlabel=f"training steps of testbed-{size}", ylabel="share of images that match", ylim=(0, 1.03)
    )
    ticks = sorted(table["steps"].unique())
    ax.set_xticks(ticks, [f"{steps:,}" for steps in ticks])
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _plain(ax)
    return figure


def judge_under_damage(card: dict[str, Any]) -> Figure:
    """Plot the judge's accuracy on whole captions, by kind and strength of degradation."""
    figure = Figure(figsize=(5.5, 3), layout="constrained")
    ax = figure.subplots()
    table = pd.DataFrame(card["spoilt"])
    for (kind, rows), colour in zip(table.groupby("kind", sort=False), _COLOURS, strict=False):
        middle = (rows["strength_low"] + rows["strength_high"]) / 2
        ends = (rows["accuracy"] - rows["ci_low"], rows["ci_high"] - rows["accuracy"])
        ax.errorbar(middle, rows["accuracy"], ends, marker="o", markersize=4, capsize=2, color=colour, label=kind)
    ax.set(xlabel="strength of degradation", ylabel="whole captions right", xlim=(0, 1), ylim=(0, 1.03))
    ax.legend(frameon=False, fontsize=8)
    _plain(ax)
    return figure


def _with_seeds(cards: Cards, trainings: Cards) -> list[tuple[str, dict[str, Any]]]:
    """List the sizes, then their further seeds, without checkpoints along a training."""
    return [*cards.items(), *((name, card) for name, card in trainings.items() if not is_along(name))]


def _plain(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    ax.title.set_fontsize(9)
