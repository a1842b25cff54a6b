"""Measure the judge on held-out renders, clean and degraded, and write its card."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from probing.testbed.caption_check import Reading, check_caption
from probing.testbed.degradations import KINDS, degrade
from probing.testbed.judge import WEIGHTS, WHOLE, Judge, accuracy_table
from probing.testbed.rates import rate
from probing.testbed.recipes import judge as recipe
from probing.testbed.recipes.cards import render_card, write_card
from probing.testbed.recipes.pixels import contradict_at_random
from probing.testbed.render import render
from probing.testbed.scenes import Scene, sample_scene

_HELD_OUT = 5_000_000
_CLEAN, _DEGRADED = 4000, 1000
"""Number of images: clean ones, and degraded ones of each kind."""
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Ends of the ranges of strength."""


def run(weights: Path = WEIGHTS, *, clean: int = _CLEAN, degraded: int = _DEGRADED) -> Path:
    """Measure the saved judge; write ``samples.png``, ``card.json`` and ``README.md`` beside it.

    Args:
        weights: The file of the judge.
        clean: Number of clean images.
        degraded: Number of degraded images of each kind.

    Returns:
        The path of ``README.md``.
    """
    judge = Judge.load(weights)
    card = {**measure(judge, clean, degraded), "bytes": weights.stat().st_size}
    folder = weights.parent
    draw_samples(judge).savefig(folder / "samples.png", dpi=100, metadata={"Software": None})
    return write_card(folder, "judge_card", card, **_context())


def render_readme(card: dict[str, Any]) -> str:
    """Render ``README.md`` from the content of ``card.json``."""
    return render_card("judge_card", card, **_context())


def _context() -> dict[str, Any]:
    return {"kinds": KINDS, "ranges": list(pairwise(STRENGTHS))}


def measure(judge: Judge, clean: int, degraded: int) -> dict[str, Any]:
    """Measure on renders that neither the judge nor any backbone was trained on.

    Returns:
        The content of ``card.json``. ``clean`` is accuracy on clean images, ``spoilt`` on degraded ones, ``caught`` the
        detection of contradicting captions, ``damage`` the error of the predicted strength.
    """
    scenes, images = _renders(clean, 0)
    readings = judge.read(images)
    card: dict[str, Any] = {
        "parameters": sum(p.numel() for p in judge.network.parameters()),
        "training_scenes": recipe.SCENES,
        "schedule": asdict(recipe.SCHEDULE),
        "clean": accuracy_table(
            [check_caption(reading, scene) for reading, scene in zip(readings, scenes, strict=True)],
            [s.caption for s in scenes],
        ).to_dict("records"),
        "clean_damage": float(np.mean([reading.damage for reading in readings])),
        "caught": _detected_contradictions(scenes, readings),
        "spoilt": [],
        "damage": [],
    }
    for number, kind in enumerate(KINDS, start=1):
        scenes, images = _renders(degraded, number)
        rng = np.random.default_rng([_HELD_OUT, 100 + number])
        strengths = rng.random(degraded)
        readings = judge.read([degrade(i, kind, float(s), rng) for i, s in zip(images, strengths, strict=True)])
        right = np.array(
            [all(check_caption(reading, scene).values()) for reading, scene in zip(readings, scenes, strict=True)]
        )
        for low, high in pairwise(STRENGTHS):
            card["spoilt"].append(
                {
                    "kind": kind,
                    "strength_low": low,
                    "strength_high": high,
                    **_row(WHOLE, right[(low <= strengths) & (strengths < high)]),
                }
            )
        predicted = np.array([reading.damage for reading in readings])
        card["damage"].append(
            {
                "kind": kind,
                "correlation": float(np.corrcoef(strengths, predicted)[0, 1]),
                "mean_absolute_error": float(np.abs(strengths - predicted).mean()),
            }
        )
    return card


def _renders(count: int, part: int) -> tuple[list[Scene], list[Image.Image]]:
    scenes, images = [], []
    for number in range(count):
        rng = np.random.default_rng([_HELD_OUT, part, number])
        scenes.append(sample_scene(rng))
        images.append(render(scenes[-1], rng))
    return scenes, images


def _detected_contradictions(scenes: list[Scene], readings: list[Reading]) -> list[dict[str, Any]]:
    """Compare each image with a caption that is wrong in one attribute: is that one, and no other, reported?"""
    detected: dict[str, list[bool]] = {}
    for number, (scene, reading) in enumerate(zip(scenes, readings, strict=True)):
        attribute, wrong_scene = contradict_at_random(scene, np.random.default_rng([_HELD_OUT, 50, number]))
        wrong = [name for name, right in check_caption(reading, wrong_scene).items() if not right]
        detected.setdefault(attribute, []).append(wrong == [attribute])
    return [_row(attribute, np.array(values)) for attribute, values in sorted(detected.items())]


def _row(attribute: str, right: np.ndarray) -> dict[str, Any]:
    share = rate(right)
    return {
        "attribute": attribute,
        "accuracy": share.estimate,
        "ci_low": share.low,
        "ci_high": share.high,
        "n": share.n,
    }


def draw_samples(judge: Judge, rows: int = 4, columns: int = 6) -> Figure:
    """Plot held-out renders, more degraded from row to row, with the attributes that are read wrongly."""
    scenes, images = _renders(rows * columns, 99)
    rng = np.random.default_rng(_HELD_OUT)
    degraded = [
        degrade(image, KINDS[number % len(KINDS)], number // columns / (rows - 1), rng)
        for number, image in enumerate(images)
    ]
    figure = Figure(figsize=(1.75 * columns, 2.3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns).flat
    for ax, scene, image, reading in zip(axes, scenes, degraded, judge.read(degraded), strict=True):
        wrong = [name for name, right in check_caption(reading, scene).items() if not right]
        ax.imshow(image, interpolation="nearest")
        for thing in reading.things:
            ax.plot(thing.x, thing.y, "+", color="white", markeredgewidth=1.5, markersize=6)
        summary = f"damage {reading.damage:.2f}" + "".join(f", {name}?" for name in wrong)
        title = "\n".join(textwrap.fill(text, 26) for text in (scene.caption, summary))
        ax.set_title(title, fontsize=6.5, color="#D55E00" if wrong else "black")
        ax.axis("off")
    return figure
