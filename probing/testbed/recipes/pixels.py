"""Training scenes: captions and pixel tensors in [−1, 1]."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from PIL import Image
from torch import Tensor

from probing.files import write_text
from probing.progress import progress
from probing.testbed.degradations import KINDS, degrade
from probing.testbed.recipes.array_files import new_array
from probing.testbed.render import RESOLUTION, render
from probing.testbed.scenes import Scene, attributes_of, canonical, contradict, sample_scene
from probing.testbed.tensors import to_tensor

SCENES = 60_000
"""Number of training scenes. Held-out scenes have other seeds."""
_SCENES_SEED = 1_000_000
_SCENES_PER_JOB = 500


@cache
def trained_scenes(scenes: int = SCENES) -> frozenset[Scene]:
    """Return the training scenes in canonical form."""
    return frozenset(canonical(sample_scene(_rng_of(number))) for number in range(scenes))


def sample_held_out(rng: np.random.Generator) -> Scene:
    """Draw a scene as :func:`sample_scene` does, but one that is not in the training data.

    The share of scenes with one, two and three kinds of thing stays as in training. Most scenes with one kind are
    training scenes, few of the others are: plain rejection would leave almost no scene with one kind.
    """
    scene = sample_scene(rng)
    kinds = len(scene.things)
    while len(scene.things) != kinds or canonical(scene) in trained_scenes():
        scene = sample_scene(rng)
    return scene


def contradict_at_random(scene: Scene, rng: np.random.Generator) -> tuple[str, Scene]:
    """Choose an attribute of a scene; return it, and a scene that differs in it."""
    attributes = attributes_of(scene)
    attribute = attributes[int(rng.integers(len(attributes)))]
    return attribute, contradict(scene, attribute, rng)


def sample_batch(size: int, rng: np.random.Generator, *, degraded: float = 0.0) -> tuple[list[str], Tensor]:
    """Draw captions and images (image, 3, 64, 64); a fraction ``degraded`` of the images is degraded."""
    captions, images = [], []
    for _ in range(size):
        scene = sample_scene(rng)
        captions.append(scene.caption)
        images.append(_degrade_some(render(scene, rng), degraded, rng))
    return captions, to_tensor(images)


class TrainingScenes:
    """The training scenes, rendered once and stored in the folder of runs.

    Attributes:
        captions: One for each scene.
        pixels: uint8, (scene, 64, 64, 3), mapped from disk, so that several trainings share the memory.
    """

    def __init__(self, runs: Path, scenes: int = SCENES, workers: int = 1) -> None:
        captions_file, pixels_file = runs / f"scenes-{scenes}.json", runs / f"scenes-{scenes}.npy"
        if not captions_file.exists():
            captions: list[str] = []
            parts = [range(start, min(start + _SCENES_PER_JOB, scenes)) for start in range(0, scenes, _SCENES_PER_JOB)]
            with (
                new_array(pixels_file, np.uint8, (scenes, RESOLUTION, RESOLUTION, 3)) as pixels,
                progress(scenes, "drawing scenes", "scenes") as bar,
            ):
                drawn = Parallel(workers, return_as="generator")(delayed(_draw)(part) for part in parts)
                for part, (part_captions, part_pixels) in zip(parts, drawn, strict=True):
                    captions += part_captions
                    pixels[part.start : part.stop] = part_pixels
                    bar.update(len(part))
            # Written last: if the captions exist, the images are complete.
            write_text(captions_file, json.dumps(captions))
        self.captions: list[str] = json.loads(captions_file.read_text())
        self.pixels = np.load(pixels_file, mmap_mode="r")

    def batch(self, size: int, rng: np.random.Generator, *, degraded: float = 0.0) -> tuple[list[str], Tensor]:
        """Draw a batch as :func:`sample_batch` does, from the stored scenes."""
        chosen = rng.integers(len(self.captions), size=size)
        images = [_degrade_some(Image.fromarray(self.pixels[number]), degraded, rng) for number in chosen]
        return [self.captions[number] for number in chosen], to_tensor(images)


def _rng_of(number: int) -> np.random.Generator:
    return np.random.default_rng([_SCENES_SEED, number])


def _draw(numbers: Iterable[int]) -> tuple[list[str], np.ndarray]:
    """Draw scenes by number: captions, and pixels (scene, 64, 64, 3)."""
    captions, pixels = [], []
    for number in numbers:
        rng = _rng_of(number)
        scene = sample_scene(rng)
        captions.append(scene.caption)
        pixels.append(np.asarray(render(scene, rng)))
    return captions, np.stack(pixels)


def _degrade_some(image: Image.Image, fraction: float, rng: np.random.Generator) -> Image.Image:
    """Degrade an image with probability ``fraction``."""
    if rng.random() >= fraction:
        return image
    return degrade(image, KINDS[int(rng.integers(len(KINDS)))], float(rng.random()), rng)
