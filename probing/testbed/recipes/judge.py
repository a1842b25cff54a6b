"""Train the judge on its own renders, half of them degraded; a focal loss locates the things."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from probing.files import replace_file, write_bytes
from probing.progress import progress
from probing.testbed.degradations import KINDS, degrade
from probing.testbed.judge import CELL, GRID, THING_CLASSES, WEIGHTS, JudgeNetwork
from probing.testbed.recipes.array_files import new_array
from probing.testbed.recipes.loop import Schedule, train
from probing.testbed.render import RESOLUTION, Place, draw, drawn_things
from probing.testbed.scenes import BACKGROUNDS, Scene, sample_scene
from probing.testbed.tensors import from_pixels

SCHEDULE = Schedule(steps=3_000, batch_size=64, learning_rate=2e-3, weight_decay=0.01, warmup=200, precision="bfloat16")
SCENES = 40_000
_SCENES_SEED = 3_000_000
"""No backbone is trained on scenes of this seed."""
_MAX_THINGS = 3
_NO_LABEL = -100
"""Class that the cross-entropy ignores."""
_DEGRADED = 0.5
"""Fraction of degraded images."""
_TINT, _SHADE = 6.0, 0.06
"""Standard deviations of a random shift of each channel (of 255) and of contrast: images need not be renders."""
_SPREAD = 0.8
"""Standard deviation, in cells, of the bump around the centre of a thing."""
_LABELLED_HEIGHT = 0.4
"""Cells with a higher bump learn the attributes of the thing."""


class LabelledScenes:
    """The judge's own scenes, drawn once and stored in the folder of runs.

    Attributes:
        pixels: uint8, (scene, 64, 64, 3), mapped from disk.
        places: float32, (scene, 3, 2): x and y of up to three things, NaN for no thing.
        things: int64, (scene, 3, 4): class of shape, colour, size and texture, −100 where the caption has none.
        ends: int64, (scene, 2): class of the background at the top and at the bottom.
    """

    def __init__(self, runs: Path, scenes: int = SCENES) -> None:
        labels_file, pixels_file = runs / f"judge-scenes-{scenes}.npz", runs / f"judge-scenes-{scenes}.npy"
        if not labels_file.exists():
            labels = []
            with (
                new_array(pixels_file, np.uint8, (scenes, RESOLUTION, RESOLUTION, 3)) as pixels,
                progress(scenes, "drawing the judge's scenes", "scenes") as bar,
            ):
                for number in range(scenes):
                    rng = np.random.default_rng([_SCENES_SEED, number])
                    scene = sample_scene(rng)
                    image, positions = draw(scene, rng)
                    pixels[number] = np.asarray(image)
                    labels.append(label(scene, positions))
                    bar.update()
            places, things, ends = (np.stack(values) for values in zip(*labels, strict=True))
            with replace_file(labels_file) as file:
                np.savez(file, places=places, things=things, ends=ends)
        with np.load(labels_file) as arrays:
            self.places, self.things, self.ends = (arrays[name] for name in ("places", "things", "ends"))
        self.pixels = np.load(pixels_file, mmap_mode="r")

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Draw pixels (image, 3, 64, 64) in [−1, 1], half of them degraded, with their targets."""
        chosen = rng.integers(len(self.pixels), size=size)
        strengths = np.where(rng.random(size) < _DEGRADED, rng.random(size), 0.0)
        images = np.empty((size, RESOLUTION, RESOLUTION, 3), np.float32)
        for row, (number, strength) in enumerate(zip(chosen, strengths, strict=True)):
            kind = KINDS[int(rng.integers(len(KINDS)))]
            images[row] = np.asarray(degrade(Image.fromarray(self.pixels[number]), kind, float(strength), rng))
        shade = 1 + _SHADE * rng.standard_normal((size, 1, 1, 1)).astype(np.float32)
        tint = _TINT * rng.standard_normal((size, 1, 1, 3)).astype(np.float32)
        images = np.clip((images - 127.5) * shade + 127.5 + tint, 0, 255)
        bumps, nearest = _bumps(self.places[chosen])
        heights = bumps.max(axis=1)
        things = np.take_along_axis(self.things[chosen][:, :, None, None], nearest[:, None, ..., None], axis=1)[:, 0]
        return from_pixels(images), {
            "heights": torch.from_numpy(heights),
            "things": torch.from_numpy(np.where((heights > _LABELLED_HEIGHT)[..., None], things, _NO_LABEL)),
            "ends": torch.from_numpy(self.ends[chosen]),
            "damage": torch.from_numpy(strengths).float(),
        }


def label(scene: Scene, places: list[Place]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label a scene: positions and classes of its things, and classes of the background's ends."""
    positions = np.full((_MAX_THINGS, 2), np.nan, np.float32)
    classes = np.full((_MAX_THINGS, len(THING_CLASSES)), _NO_LABEL, np.int64)
    for row, (thing, (x, y, _)) in enumerate(zip(drawn_things(scene), places, strict=True)):
        positions[row] = x, y
        for column, (name, values) in enumerate(THING_CLASSES.items()):
            value = getattr(thing, name)
            if value is not None:
                classes[row, column] = values.index(value)
    colours = scene.background.split(" to ")
    ends = np.array([list(BACKGROUNDS).index(colour) for colour in (colours[0], colours[-1])])
    return positions, classes, ends


def _bumps(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute bumps (image, 3, 16, 16) around the centre of each thing, and the nearest thing (image, 16, 16)."""
    centres = CELL * (np.arange(GRID, dtype=np.float32) + 0.5)
    x, y = (places[..., axis, None, None] for axis in (0, 1))
    squared = ((centres[None, :] - x) ** 2 + (centres[:, None] - y) ** 2) / CELL**2
    squared = np.where(np.isnan(squared), np.inf, squared)
    return np.exp(-squared / (2 * _SPREAD**2)), squared.argmin(axis=1)


def judge_loss(network: JudgeNetwork, pixels: Tensor, targets: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Sum the focal loss of positions and the cross-entropies of attributes, background and strength of degradation."""
    centres, attributes, ends, damage = network(pixels)
    attribute_loss = sum(
        (
            F.cross_entropy(logits, targets["things"][..., column], ignore_index=_NO_LABEL)
            for column, logits in enumerate(attributes.values())
        ),
        torch.zeros(()),
    )
    position_loss = focal_loss(centres, targets["heights"])
    background_loss = F.cross_entropy(ends.flatten(0, 1), targets["ends"].flatten())
    damage_loss = F.binary_cross_entropy_with_logits(damage, targets["damage"])
    damage_error = (damage.detach().sigmoid() - targets["damage"]).abs().mean()
    metrics = {
        "where": position_loss,
        "what": attribute_loss,
        "background": background_loss,
        "damage_error": damage_error,
    }
    total = position_loss + attribute_loss + background_loss + damage_loss
    return total, {name: float(value.detach()) for name, value in metrics.items()}


def focal_loss(logits: Tensor, heights: Tensor) -> Tensor:
    """Locate centres, with a smaller penalty near them (Law and Deng 2018, equation 1); mean over things.

    A cell is a positive where its height is the largest of its neighbourhood.
    """
    peak = (heights == F.max_pool2d(heights[:, None], 3, stride=1, padding=1)[:, 0]) & (heights > 0.3)
    probability = logits.sigmoid()
    missed = F.softplus(-logits) * (1 - probability).square()
    wrong = F.softplus(logits) * probability.square() * (1 - heights) ** 4
    return torch.where(peak, missed, wrong).sum() / peak.sum().clamp(min=1)


def run(runs: Path, schedule: Schedule = SCHEDULE, *, scenes: int = SCENES, weights: Path = WEIGHTS) -> JudgeNetwork:
    """Train the judge and save it in half precision."""
    pool = LabelledScenes(runs, scenes)
    torch.manual_seed(schedule.seed)
    network = JudgeNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        return judge_loss(network, *pool.batch(schedule.batch_size, rng))

    train({"judge": network}, loss, schedule, runs / "judge", checkpoint_every=250)
    save_half(network, weights)
    return network.eval()


def save_half(module: torch.nn.Module, path: Path) -> None:
    """Write the state of a module as safetensors, floating-point tensors in half precision."""
    state = module.state_dict()
    write_bytes(path, save({n: (t.half() if t.is_floating_point() else t).contiguous() for n, t in state.items()}))
