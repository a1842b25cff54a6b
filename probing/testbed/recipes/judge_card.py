"""The judge's card: what it reads rightly of unseen renders, clean and spoilt, and what contradictions it catches."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from probing.testbed.degradations import KINDS, degrade
from probing.testbed.judge import WEIGHTS, WHOLE, Judge, accuracy_table
from probing.testbed.rates import rate
from probing.testbed.recipes import judge as recipe
from probing.testbed.render import render
from probing.testbed.scenes import Scene, attributes_of, contradict, sample_scene
from probing.testbed.seen import obeys

_HELD_OUT = 5_000_000
_CLEAN, _SPOILT = 4000, 1000
"""Pictures: clean ones, and of each kind of damage."""
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Ends of the ranges of strength."""


def run(weights: Path = WEIGHTS, *, clean: int = _CLEAN, spoilt: int = _SPOILT) -> Path:
    """Measure the saved judge, draw ``samples.png``, write ``card.json`` and ``README.md`` beside it."""
    judge = Judge.load(weights)
    measured = measure(judge, clean, spoilt)
    measured["bytes"] = weights.stat().st_size
    folder = weights.parent
    draw_samples(judge).savefig(folder / "samples.png", dpi=100, metadata={"Software": None})
    (folder / "card.json").write_text(json.dumps(measured, indent=1) + "\n")
    card = folder / "README.md"
    card.write_text(_text(measured))
    return card


def measure(judge: Judge, clean: int, spoilt: int) -> dict[str, Any]:
    """Measure on renders that neither the judge nor any backbone was trained on."""
    scenes, images = _renders(clean, 0)
    readings = judge.read(images)
    measured: dict[str, Any] = {
        "parameters": sum(p.numel() for p in judge.network.parameters()),
        "training_scenes": recipe.SCENES,
        "schedule": asdict(recipe.SCHEDULE),
        "clean": accuracy_table(
            [obeys(seen, scene) for seen, scene in zip(readings, scenes, strict=True)], [s.caption for s in scenes]
        ).to_dict("records"),
        "clean_damage": float(np.mean([seen.damage for seen in readings])),
        "caught": _caught(scenes, readings),
        "spoilt": [],
        "damage": [],
    }
    for number, kind in enumerate(KINDS, start=1):
        scenes, images = _renders(spoilt, number)
        rng = np.random.default_rng([_HELD_OUT, 100 + number])
        strengths = rng.random(spoilt)
        readings = judge.read([degrade(i, kind, float(s), rng) for i, s in zip(images, strengths, strict=True)])
        right = np.array([all(obeys(seen, scene).values()) for seen, scene in zip(readings, scenes, strict=True)])
        for low, high in pairwise(STRENGTHS):
            of = rate(right[(low <= strengths) & (strengths < high)])
            measured["spoilt"].append(
                {
                    "kind": kind,
                    "strength_low": low,
                    "strength_high": high,
                    "attribute": WHOLE,
                    "accuracy": of.estimate,
                    "ci_low": of.low,
                    "ci_high": of.high,
                    "n": of.n,
                }
            )
        seen_damage = np.array([seen.damage for seen in readings])
        measured["damage"].append(
            {
                "kind": kind,
                "correlation": float(np.corrcoef(strengths, seen_damage)[0, 1]),
                "mean_absolute_error": float(np.abs(strengths - seen_damage).mean()),
            }
        )
    return measured


def _renders(count: int, part: int) -> tuple[list[Scene], list[Image.Image]]:
    scenes, images = [], []
    for number in range(count):
        rng = np.random.default_rng([_HELD_OUT, part, number])
        scenes.append(sample_scene(rng))
        images.append(render(scenes[-1], rng))
    return scenes, images


def _caught(scenes: list[Scene], readings: list) -> list[dict[str, Any]]:
    """Hold each picture against a caption that it contradicts in one attribute: is that one, and no other, found?"""
    found: dict[str, list[bool]] = {}
    for number, (scene, seen) in enumerate(zip(scenes, readings, strict=True)):
        rng = np.random.default_rng([_HELD_OUT, 50, number])
        possible = attributes_of(scene)
        attribute = possible[int(rng.integers(len(possible)))]
        judged = obeys(seen, contradict(scene, attribute, rng))
        wrong = [name for name, right in judged.items() if not right]
        found.setdefault(attribute, []).append(wrong == [attribute])
    rates = {attribute: rate(np.array(values)) for attribute, values in found.items()}
    return [
        {"attribute": attribute, "accuracy": of.estimate, "ci_low": of.low, "ci_high": of.high, "n": of.n}
        for attribute, of in sorted(rates.items())
    ]


def draw_samples(judge: Judge, rows: int = 4, columns: int = 6) -> Figure:
    """Draw unseen renders, the later rows spoilt more and more, with the caption's attributes that are not read."""
    scenes, images = _renders(rows * columns, 99)
    rng = np.random.default_rng(_HELD_OUT)
    shown = [
        degrade(image, KINDS[number % len(KINDS)], number // columns / (rows - 1), rng)
        for number, image in enumerate(images)
    ]
    figure = Figure(figsize=(1.75 * columns, 2.3 * rows), layout="constrained")
    for ax, scene, image, seen in zip(
        figure.subplots(rows, columns).flat, scenes, shown, judge.read(shown), strict=True
    ):
        missed = [name for name, right in obeys(seen, scene).items() if not right]
        ax.imshow(image, interpolation="nearest")
        for thing in seen.things:
            ax.plot(thing.x, thing.y, "+", color="white", markeredgewidth=1.5, markersize=6)
        found = textwrap.fill(f"damage {seen.damage:.2f}" + "".join(f", {name}?" for name in missed), 26)
        said = f"{textwrap.fill(scene.caption, 26)}\n{found}"
        ax.set_title(said, fontsize=6.5, color="#D55E00" if missed else "black")
        ax.axis("off")
    return figure


def _percent(row: dict[str, Any]) -> str:
    return f"{100 * row['accuracy']:.2f} [{100 * row['ci_low']:.2f}, {100 * row['ci_high']:.2f}]"


def _text(measured: dict[str, Any]) -> str:
    clean = "\n".join(f"| {row['attribute']} | {_percent(row)} | {row['n']:,} |" for row in measured["clean"])
    caught = "\n".join(f"| {row['attribute']} | {_percent(row)} | {row['n']:,} |" for row in measured["caught"])
    ranges = [f"{low:g}–{high:g}" for low, high in pairwise(STRENGTHS)]
    spoilt = "\n".join(
        f"| {kind} | " + " | ".join(_percent(row) for row in measured["spoilt"] if row["kind"] == kind) + " |"
        for kind in KINDS
    )
    damage = "\n".join(
        f"| {row['kind']} | {row['correlation']:.3f} | {row['mean_absolute_error']:.3f} |" for row in measured["damage"]
    )
    return f"""# The judge

A convolutional network of {measured["parameters"]:,} parameters ({measured["bytes"] / 1e6:.1f} MB, float16) that tells
what things a 64×64 picture shows and where, the background's two ends, and how strongly the picture is spoilt. Whether that
obeys a caption is then decided by plain rules (`probing/testbed/seen.py`), attribute by attribute.

It was trained on {measured["training_scenes"]:,} renders of its own, half of them spoilt, all with a slight tint and
contrast of chance. It shares no weights, pictures or seeds with any backbone, and it never sees a caption.

```python
from probing.testbed.judge import Judge, judged_accuracy

judged_accuracy(images, captions)  # attribute, accuracy, ci_low, ci_high, n
Judge.load().read(images)[0].things  # what is seen
```

## Its own errors

Percent of {measured["clean"][-1]["n"]:,} unseen clean renders, 95% Wilson interval:

| read rightly | clean renders | n |
|---|---|---|
{clean}

Held against a caption that is wrong in one attribute, how often it finds that one and no other:

| contradicted | caught | n |
|---|---|---|
{caught}

Whole captions read rightly in spoilt renders, by strength (where damage hides what is shown, no reader can do well):

| artefact | {" | ".join(ranges)} |
|---|{"---|" * len(ranges)}
{spoilt}

Damage as it is seen against its true strength (clean renders: {measured["clean_damage"]:.3f} on average):

| artefact | correlation | mean absolute error |
|---|---|---|
{damage}

![unseen renders, one row a strength: 0, ⅓, ⅔, 1](samples.png)

## Limits

It knows renders. Of a generated picture it names the nearest thing that the grammar has, however poor; what is no thing
of the grammar may be passed over or named wrongly. Damage is that of the four artefacts; other faults of generated
pictures count only as far as they look like those.

`python -m probing.testbed.train judge`, then `judge-card`. Schedule:

```json
{json.dumps(measured["schedule"])}
```
"""
