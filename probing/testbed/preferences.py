"""Preference pairs with ground truth: a reward for each image, and simulated annotators with known noise.

Every prompt has four rendered images and three pairs of them. In the *alignment* pair both are clean, and one shows a
scene that differs from the caption in one attribute. In the *quality* pair both match the caption and are degraded with
different strengths. The *both* pair compares the clean, wrong image with one of the right, degraded images. Some
prompts also have a *generated* pair, made by the testbed's models and judged by its judge.

The reward is −1 for each wrong attribute and −1.5 times the strength of the degradation. Annotators choose by
Bradley–Terry, so the best possible accuracy on each pair is known.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL
from PIL import Image

from probing.preferences import DrawnImages, PreferenceData
from probing.testbed import faults, generated
from probing.testbed.degradations import KINDS, degrade
from probing.testbed.render import RESOLUTION, render
from probing.testbed.scenes import Scene, attributes_of, canonical, contradict, sample_scene

VERSION = 2
PROMPTS = {"train": 2000, "test": 1000}
WRONG_ATTRIBUTE = -1.0
DAMAGE = -1.5
TEMPERATURE = 0.4
"""Temperature of the annotators: the odds of a choice are exp(difference of rewards / temperature)."""
_LEAST_DIFFERENCE = 0.15
_SAME_KIND = 0.5
"""Probability that both images of a quality pair have the same kind of degradation."""
RENDERER = "renderer"
CLEAN = "none"
"""Kind of an image without degradation."""

ITEM_COLUMNS = ("item_id", "prompt_id", "prompt", "reward", "wrong", "kind", "strength", "source_model")
SIDES = ("reward", "strength", "source_model")
"""Columns of items that pairs repeat for both sides, as ``reward_first`` and ``reward_second``."""


@dataclass(frozen=True)
class Drawing:
    """One image to draw: its scene, that of its caption, kind and strength of degradation, and seed."""

    scene: Scene
    wanted: Scene
    kind: str
    strength: float
    seed: tuple[int, ...]

    def open(self) -> Image.Image:
        rng = np.random.default_rng(self.seed)
        image = render(self.scene, rng)
        return image if self.kind == CLEAN else degrade(image, self.kind, self.strength, rng)

    def heat_map(self, kind: str) -> np.ndarray | None:
        """Return where the picture is wrong or damaged, by :mod:`probing.testbed.faults`."""
        if kind == faults.MISALIGNMENT:
            return faults.misalignment_map(self.scene, self.wanted, self.seed)
        if self.kind == CLEAN:
            return np.zeros((RESOLUTION, RESOLUTION), dtype=np.float32)
        return faults.damage_map(self.scene, self.kind, self.strength, self.seed)


@dataclass(frozen=True)
class Prompt:
    """A caption's scene, and one that contradicts it in one attribute.

    Attributes:
        index: Position among the prompts; (seed, index) decides all random numbers of the prompt.
        scene: The scene of the caption.
        attribute: The attribute in which ``wrong`` differs.
        wrong: The contradicting scene.
        split: ``train`` or ``test``.
    """

    index: int
    scene: Scene
    attribute: str
    wrong: Scene
    split: str

    @property
    def prompt_id(self) -> str:
        return f"p{self.index:05d}"


def load(*, split: str | None = None, seed: int = 0) -> PreferenceData:
    """Make the testbed's preference data; rendered images are drawn when they are opened.

    Args:
        split: ``train``, ``test``, or None for both.
        seed: Decides prompts, images and choices; only seed 0 has generated images.

    Returns:
        Data with further columns. Items: ``reward``, ``wrong`` (number of wrong attributes), ``kind`` and ``strength``
        of the degradation, ``source_model``. Pairs: ``attribute`` (the wrong attribute, the kinds of degradation, or
        the source models), ``reward_first``, ``strength_first``, ``source_model_first``, the same for the second, and
        ``probability`` (that an annotator chooses the first).
    """
    items, drawings, open_image, pairs = _make(seed)
    if split is not None:
        pairs = pairs[pairs["split"] == split].reset_index(drop=True)
        items = items[items["item_id"].isin([*pairs["first"], *pairs["second"]])].reset_index(drop=True)
    return PreferenceData(
        name="testbed",
        items=items.copy(),
        pairs=pairs.copy(),
        images=DrawnImages(
            open_image, drawing_version(seed), kinds=faults.KINDS, heat_map=partial(_heat_map, drawings)
        ),
        settings={
            "version": VERSION,
            "seed": seed,
            "temperature": TEMPERATURE,
            "generated": generated.digest() if seed == generated.SEED else None,
        },
    )


def _heat_map(drawings: Mapping[str, Drawing], item_id: str, kind: str) -> np.ndarray | None:
    """Return None for a generated picture: nobody knows where it is wrong."""
    drawing = drawings.get(item_id)
    return None if drawing is None else drawing.heat_map(kind)


@lru_cache(maxsize=8)
def drawing_version(seed: int) -> str:
    """Hash everything that can affect the images: seed, source files, library versions and the generated images.

    All source files of the testbed are included, so that none is forgotten.
    """
    digest = hashlib.sha256(repr((seed, np.__version__, PIL.__version__, generated.digest())).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        content = source.read_bytes()
        digest.update(repr((source.name, len(content))).encode())
        digest.update(content)
    return digest.hexdigest()[:32]


def captions(split: str) -> list[str]:
    """List the captions of a split of the preference data, in order."""
    return [prompt.scene.caption for prompt in prompts() if prompt.split == split]


def prompts(seed: int = 0, counts: dict[str, int] | None = None) -> list[Prompt]:
    """Draw the prompts of the data.

    No scene occurs twice, in canonical form, whether as a caption or as a contradiction. If a scene of a prompt
    occurred before, both of its scenes are drawn again, so that either is equally likely to be the caption's. The new
    scenes have the same number of kinds of thing and the same wrong attribute, so that later prompts have the
    distribution of earlier ones.
    """
    used: set[str] = set()
    drawn = []
    for index, split in enumerate(s for s, count in (counts or PROMPTS).items() for _ in range(count)):
        rng = np.random.default_rng([seed, index])
        scene = sample_scene(rng)
        kinds, possible = len(scene.things), attributes_of(scene)
        attribute = possible[int(rng.integers(len(possible)))]
        while True:
            wrong = contradict(scene, attribute, rng)
            captions = {canonical(scene).caption, canonical(wrong).caption}
            if not captions & used:
                break
            scene = sample_scene(rng)
            while len(scene.things) != kinds:
                scene = sample_scene(rng)
        used |= captions
        drawn.append(Prompt(index, scene, attribute, wrong, split))
    return drawn


def reward_of(wrong: int, damage: float) -> float:
    """Compute the reward from the number of wrong attributes and the strength of degradation, from 0 to 1."""
    return 0.0 + WRONG_ATTRIBUTE * wrong + DAMAGE * damage


def probability_of_first(rewards: tuple[float, float]) -> float:
    """Compute the probability of choosing the first (Bradley–Terry), rounded to be equal on any processor."""
    return round(1 / (1 + math.exp((rewards[1] - rewards[0]) / TEMPERATURE)), 12)


@lru_cache(maxsize=2)
def _make(seed: int) -> tuple[pd.DataFrame, dict[str, Drawing], Callable[[str], Image.Image], pd.DataFrame]:
    drawings: dict[str, Drawing] = {}
    items, compared = [], []
    drawn = prompts(seed)
    for prompt in drawn:
        rng = np.random.default_rng([seed, prompt.index, 1])
        made, about = _pictures(prompt, rng)
        for number, (name, (scene, wrong, kind, strength)) in enumerate(made.items()):
            item_id = f"{prompt.prompt_id}-{name}"
            drawings[item_id] = Drawing(scene, prompt.scene, kind, strength, (seed, prompt.index, 2, number))
            truth = (reward_of(wrong, strength), wrong, kind, strength)
            items.append((item_id, prompt.prompt_id, prompt.scene.caption, *truth, RENDERER))
        degraded = int(rng.integers(2))
        of_facet = {
            "alignment": ("right", "wrong"),
            "quality": ("spoilt-0", "spoilt-1"),
            "both": ("wrong", f"spoilt-{degraded}"),
        }
        for facet, names in of_facet.items():
            pair = [f"{prompt.prompt_id}-{name}" for name in names]
            kinds = about["both"][degraded] if facet == "both" else about[facet]
            compared.append((prompt.prompt_id, prompt.split, facet, kinds, *pair))
    shipped = generated.load() if seed == generated.SEED else None
    if shipped is not None:
        items += list(shipped.items[list(ITEM_COLUMNS)].itertuples(index=False, name=None))
        split_of = {prompt.prompt_id: prompt.split for prompt in drawn}
        compared += [(p, split_of[p], "generated", models, *pair) for p, models, pair in shipped.pairs()]
    table = pd.DataFrame(items, columns=list(ITEM_COLUMNS)).assign(image=lambda t: t["item_id"])

    def open_image(item_id: str) -> Image.Image:
        if item_id in drawings:
            return drawings[item_id].open()
        assert shipped is not None
        return shipped.open(item_id)

    return table, drawings, open_image, choose(table, compared, seed)


def _pictures(
    prompt: Prompt, rng: np.random.Generator
) -> tuple[dict[str, tuple[Scene, int, str, float]], dict[str, Any]]:
    """Choose the four images of a prompt, and the ``attribute`` of the pair of each facet."""
    strengths = rng.random(2)
    while abs(strengths[0] - strengths[1]) < _LEAST_DIFFERENCE:
        strengths = rng.random(2)
    kinds = [KINDS[int(rng.integers(len(KINDS)))] for _ in strengths]
    if rng.random() < _SAME_KIND:
        kinds[1] = kinds[0]
    made = {
        "right": (prompt.scene, 0, CLEAN, 0.0),
        "wrong": (prompt.wrong, 1, CLEAN, 0.0),
        "spoilt-0": (prompt.scene, 0, kinds[0], float(strengths[0])),
        "spoilt-1": (prompt.scene, 0, kinds[1], float(strengths[1])),
    }
    about = {
        "alignment": prompt.attribute,
        "quality": "+".join(sorted(set(kinds))),
        "both": [f"{prompt.attribute}+{kind}" for kind in kinds],
    }
    return made, about


def choose(items: pd.DataFrame, compared: list[tuple[Any, ...]], seed: int) -> pd.DataFrame:
    """Randomise the sides of each pair, and draw the annotators' choices.

    Args:
        items: ``item_id`` and :data:`SIDES`.
        compared: ``prompt_id, split, facet, attribute`` and two items of each pair.
        seed: With split and facet the seed of a generator, so that facets do not depend on each other.
    """
    columns = ["prompt_id", "split", "facet", "attribute", "first", "second"]
    pairs = pd.DataFrame(compared, columns=columns)
    by_item = items.set_index("item_id")
    parts = []
    for (split, facet), part in pairs.groupby(["split", "facet"], sort=False):
        rng = np.random.default_rng([seed, 3, *f"{split}/{facet}".encode()])
        swapped = rng.random(len(part)) < 0.5
        part = part.assign(
            first=part["second"].where(swapped, part["first"]), second=part["first"].where(swapped, part["second"])
        )
        for name in SIDES:
            for side in ("first", "second"):
                part[f"{name}_{side}"] = part[side].map(by_item[name])
        part["probability"] = [
            probability_of_first(rewards) for rewards in zip(part["reward_first"], part["reward_second"], strict=True)
        ]
        parts.append(part.assign(choice=annotate(part["probability"].to_numpy(), rng)))
    made = pd.concat(parts).sort_index(kind="stable").reset_index(drop=True)
    made.insert(0, "pair_id", made["prompt_id"] + "-" + made["facet"])
    return made


def annotate(probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw choices (pair,): 1 the first, 0 the second, each with exactly its probability.

    Errors are drawn by systematic sampling, from the most certain pair to the least certain (Madow 1949): among similar
    pairs the number of errors equals the Bradley–Terry expectation to within one. So the ceiling holds for these
    choices, not only on average.
    """
    erring = np.minimum(probabilities, 1 - probabilities)
    order = np.lexsort((rng.random(len(erring)), erring.round(9)))
    passed = np.floor(np.cumsum(erring[order]) + rng.random())
    errs = np.empty(len(erring), dtype=bool)
    errs[order] = np.diff(passed, prepend=0.0) > 0
    # At probability ½ either choice is an error half of the time.
    return ((probabilities >= 0.5) ^ errs).astype(float)
