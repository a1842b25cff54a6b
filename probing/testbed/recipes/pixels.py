"""Scenes as training batches: captions and pixel tensors in [−1, 1]."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from probing.testbed.degradations import KINDS, degrade
from probing.testbed.render import RESOLUTION, render
from probing.testbed.scenes import Scene, canonical, sample_scene
from probing.testbed.tensors import to_tensor

SCENES = 60_000
"""Different scenes seen in training; held-out scenes come from other seeds."""
_SCENES_SEED = 1_000_000
_DRAWN_AT_ONCE = 500


@cache
def trained_scenes(scenes: int = SCENES) -> frozenset[Scene]:
    """All that the captions of the training scenes say, in canonical telling."""
    return frozenset(canonical(sample_scene(_rng_of(number))) for number in range(scenes))


def sample_held_out(rng: np.random.Generator) -> Scene:
    """Draw as :func:`sample_scene` does, but a scene that no training caption describes.

    Of each number of kinds of thing there are as many as there. Nearly all scenes of one kind are trained on, of more
    kinds nearly none: without this, what is measured would be recall of one and composition of the other.
    """
    scene = sample_scene(rng)
    kinds = len(scene.things)
    while len(scene.things) != kinds or canonical(scene) in trained_scenes():
        scene = sample_scene(rng)
    return scene


def sample_batch(
    size: int,
    rng: np.random.Generator,
    *,
    degraded: float = 0.0,
    draw: Callable[[np.random.Generator], Scene] = sample_scene,
) -> tuple[list[str], Tensor]:
    """Draw captions and images (image, 3, 64, 64); a fraction ``degraded`` of the images is spoilt."""
    captions, images = [], []
    for _ in range(size):
        scene = draw(rng)
        captions.append(scene.caption)
        images.append(_spoil(render(scene, rng), degraded, rng))
    return captions, to_tensor(images)


class TrainingScenes:
    """The training scenes, rendered once and kept in the folder of runs.

    Attributes:
        captions: One a scene.
        pixels: uint8, (scene, 64, 64, 3), mapped from disk, so that several trainings share it.
    """

    def __init__(self, runs: Path, scenes: int = SCENES, workers: int = 1) -> None:
        said, drawn = runs / f"scenes-{scenes}.json", runs / f"scenes-{scenes}.npy"
        if not said.exists():
            runs.mkdir(parents=True, exist_ok=True)
            partial = drawn.with_suffix(".partial.npy")
            pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, (scenes, RESOLUTION, RESOLUTION, 3))
            captions: list[str] = []
            parts = [range(start, min(start + _DRAWN_AT_ONCE, scenes)) for start in range(0, scenes, _DRAWN_AT_ONCE)]
            drawing = Parallel(workers, return_as="generator")(delayed(_draw)(part) for part in parts)
            for part, (told, shown) in zip(
                parts, tqdm(drawing, total=len(parts), desc="drawing scenes", disable=None), strict=True
            ):
                captions += told
                pixels[part.start : part.stop] = shown
            pixels.flush()
            os.replace(partial, drawn)
            # The captions come last, and at once: where they are, the pictures are whole.
            told_all = said.with_suffix(".partial")
            told_all.write_text(json.dumps(captions))
            os.replace(told_all, said)
        self.captions: list[str] = json.loads(said.read_text())
        self.pixels = np.load(drawn, mmap_mode="r")

    def batch(self, size: int, rng: np.random.Generator, *, degraded: float = 0.0) -> tuple[list[str], Tensor]:
        """As :func:`sample_batch`, from the scenes that are kept."""
        chosen = rng.integers(len(self.captions), size=size)
        images = [_spoil(Image.fromarray(self.pixels[number]), degraded, rng) for number in chosen]
        return [self.captions[number] for number in chosen], to_tensor(images)


def _rng_of(number: int) -> np.random.Generator:
    return np.random.default_rng([_SCENES_SEED, number])


def _draw(numbers: Iterable[int]) -> tuple[list[str], np.ndarray]:
    """Draw scenes by their numbers: captions, and pixels (scene, 64, 64, 3)."""
    captions, pixels = [], []
    for number in numbers:
        rng = _rng_of(number)
        scene = sample_scene(rng)
        captions.append(scene.caption)
        pixels.append(np.asarray(render(scene, rng)))
    return captions, np.stack(pixels)


def _spoil(image: Image.Image, degraded: float, rng: np.random.Generator) -> Image.Image:
    if rng.random() >= degraded:
        return image
    return degrade(image, KINDS[int(rng.integers(len(KINDS)))], float(rng.random()), rng)
