"""Preference pairs whose truth is known: scenes under one caption, a reward, annotators of stated noise.

Every prompt has two pairs. In the *alignment* pair both pictures are clean, and one shows a scene that differs
from the caption in one attribute. In the *quality* pair both show what the caption says, spoilt by a different
strength. The reward is −1 for a wrong attribute and −1.5 times the strength of the damage; annotators choose by
Bradley–Terry, so the best reachable accuracy is known for each pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import numpy as np
import pandas as pd
from PIL import Image

from probing.preferences import DrawnImages, PreferenceData
from probing.testbed.degradations import KINDS, degrade
from probing.testbed.scenes import Scene, attributes_of, contradict, render, sample_scene

PROMPTS = {"train": 2000, "test": 1000}
WRONG_ATTRIBUTE = -1.0
DAMAGE = -1.5
TEMPERATURE = 0.4
"""Of the annotators: they choose the better of two with odds exp(difference of rewards / temperature)."""
_LEAST_DIFFERENCE = 0.15


@dataclass(frozen=True)
class _Item:
    """One picture to be drawn: what it shows, how it is spoilt, and by which seed."""

    scene: Scene
    kind: str
    strength: float
    reward: float
    seed: tuple[int, ...]

    def open(self) -> Image.Image:
        rng = np.random.default_rng(self.seed)
        return degrade(render(self.scene, rng), self.kind, self.strength, rng)


def load(*, split: str | None = None, seed: int = 0) -> PreferenceData:
    """Make the testbed's preference data; pictures are drawn when they are opened.

    Args:
        split: ``train``, ``test``, or None for both.
        seed: Other seeds give other prompts, pictures and choices.

    Returns:
        Data whose pairs also have ``attribute`` (what is wrong in an alignment pair), ``reward_first``,
        ``reward_second`` and ``probability`` (of an annotator choosing the first).
    """
    items, drawn, pairs = _make(seed)
    if split is not None:
        pairs = pairs[pairs["split"] == split].reset_index(drop=True)
        items = items[items["prompt_id"].isin(pairs["prompt_id"])].reset_index(drop=True)
    return PreferenceData(
        name="testbed",
        items=items.copy(),
        pairs=pairs.copy(),
        images=DrawnImages(lambda item_id: drawn[item_id].open()),
        settings={"version": 1, "seed": seed, "temperature": TEMPERATURE},
    )


@lru_cache(maxsize=2)
def _make(seed: int) -> tuple[pd.DataFrame, dict[str, _Item], pd.DataFrame]:
    drawn: dict[str, _Item] = {}
    items, pairs = [], []
    captions: set[str] = set()
    splits = [split for split, prompts in PROMPTS.items() for _ in range(prompts)]
    for index, split in enumerate(splits):
        rng = np.random.default_rng([seed, index])
        scene = sample_scene(rng)
        # A caption is one prompt: none comes twice, so none is on both sides of the split.
        while scene.caption in captions:
            scene = sample_scene(rng)
        captions.add(scene.caption)
        prompt_id = f"p{index:05d}"
        possible = attributes_of(scene)
        attribute = possible[int(rng.integers(len(possible)))]
        wrong = contradict(scene, attribute, rng)
        strengths = rng.random(2)
        while abs(strengths[0] - strengths[1]) < _LEAST_DIFFERENCE:
            strengths = rng.random(2)
        kinds = [KINDS[int(rng.integers(len(KINDS)))] for _ in strengths]
        made = {
            "alignment": [(scene, KINDS[0], 0.0, 0.0), (wrong, KINDS[0], 0.0, WRONG_ATTRIBUTE)],
            "quality": [(scene, k, float(s), DAMAGE * float(s)) for k, s in zip(kinds, strengths, strict=True)],
        }
        picture = count()
        for facet, pictures in made.items():
            ids = []
            for number, (shown, kind, strength, reward) in enumerate(pictures):
                item_id = f"{prompt_id}-{facet}-{number}"
                drawn[item_id] = _Item(shown, kind, strength, reward, (seed, index, next(picture)))
                items.append((item_id, prompt_id, scene.caption, reward))
                ids.append(item_id)
            # The better one's place is drawn, and then the annotators' choice.
            if rng.random() < 0.5:
                ids.reverse()
            rewards = [drawn[item_id].reward for item_id in ids]
            probability = float(1 / (1 + np.exp((rewards[1] - rewards[0]) / TEMPERATURE)))
            choice = float(rng.random() < probability)
            about = attribute if facet == "alignment" else "+".join(sorted(set(kinds)))
            pairs.append((f"{prompt_id}-{facet}", prompt_id, *ids, choice, split, facet, about, *rewards, probability))
    return (
        pd.DataFrame(items, columns=["item_id", "prompt_id", "prompt", "reward"]).assign(image=lambda t: t["item_id"]),
        drawn,
        pd.DataFrame(
            pairs,
            columns=["pair_id", "prompt_id", "first", "second", "choice", "split", "facet", "attribute",
                     "reward_first", "reward_second", "probability"],
        ),
    )  # fmt: skip
