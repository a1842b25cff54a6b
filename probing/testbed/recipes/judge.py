"""The judge's training: renders of its own, half of them spoilt; things are found by a focal loss."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from probing.testbed.degradations import KINDS, degrade
from probing.testbed.judge import CELL, GRID, OF_A_THING, WEIGHTS, JudgeNetwork
from probing.testbed.recipes.loop import Schedule, train
from probing.testbed.render import RESOLUTION, draw, drawn_things
from probing.testbed.scenes import BACKGROUNDS, Scene, sample_scene
from probing.testbed.tensors import from_pixels

SCHEDULE = Schedule(steps=3_000, batch_size=64, learning_rate=2e-3, weight_decay=0.01, warmup=200, precision="bfloat16")
SCENES = 40_000
_SCENES_SEED = 3_000_000
"""No backbone is trained on scenes of this seed."""
_MOST = 3
_SPOILT = 0.5
_TINT, _SHADE = 6.0, 0.06
"""Deviations of a shift of each channel (of 255) and of contrast: a picture need not come from the renderer."""
_SPREAD = 0.8
"""Deviation, in cells, of the bump around a thing's centre."""
_OF_THE_THING = 0.4
"""Cells whose bump is higher learn what the thing is."""


class LabelledScenes:
    """The judge's own scenes, drawn once and kept in the folder of runs.

    Attributes:
        pixels: uint8, (scene, 64, 64, 3), mapped from disk.
        places: float32, (scene, 3, 2): x and y of up to three things, NaN where there is none.
        things: int64, (scene, 3, 4): shape, colour, size and texture by number, −100 where not said.
        ends: int64, (scene, 2): the background's top and bottom.
    """

    def __init__(self, runs: Path, scenes: int = SCENES) -> None:
        labels, drawn = runs / f"judge-scenes-{scenes}.npz", runs / f"judge-scenes-{scenes}.npy"
        if not labels.exists():
            runs.mkdir(parents=True, exist_ok=True)
            partial = drawn.with_suffix(".partial.npy")
            pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, (scenes, RESOLUTION, RESOLUTION, 3))
            said = []
            for number in tqdm(range(scenes), desc="drawing the judge's scenes", disable=None):
                rng = np.random.default_rng([_SCENES_SEED, number])
                scene = sample_scene(rng)
                image, where = draw(scene, rng)
                pixels[number] = np.asarray(image)
                said.append(label(scene, where))
            pixels.flush()
            os.replace(partial, drawn)
            places, things, ends = (np.stack(values) for values in zip(*said, strict=True))
            with labels.with_suffix(".partial").open("wb") as file:
                np.savez(file, places=places, things=things, ends=ends)
            os.replace(labels.with_suffix(".partial"), labels)
        with np.load(labels) as kept:
            self.places, self.things, self.ends = (kept[name] for name in ("places", "things", "ends"))
        self.pixels = np.load(drawn, mmap_mode="r")

    def batch(self, size: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Draw pixels (image, 3, 64, 64) in [−1, 1], half of them spoilt, and what is to be read in them."""
        chosen = rng.integers(len(self.pixels), size=size)
        strengths = np.where(rng.random(size) < _SPOILT, rng.random(size), 0.0)
        images = np.empty((size, RESOLUTION, RESOLUTION, 3), np.float32)
        for row, (number, strength) in enumerate(zip(chosen, strengths, strict=True)):
            kind = KINDS[int(rng.integers(len(KINDS)))]
            images[row] = np.asarray(degrade(Image.fromarray(self.pixels[number]), kind, float(strength), rng))
        shade = 1 + _SHADE * rng.standard_normal((size, 1, 1, 1)).astype(np.float32)
        tint = _TINT * rng.standard_normal((size, 1, 1, 3)).astype(np.float32)
        images = np.clip((images - 127.5) * shade + 127.5 + tint, 0, 255)
        bumps, nearest = _bumps(self.places[chosen])
        here = torch.from_numpy(bumps.max(axis=1))
        things = np.take_along_axis(self.things[chosen][:, :, None, None], nearest[:, None, ..., None], axis=1)[:, 0]
        return from_pixels(images), {
            "found": here,
            "things": torch.from_numpy(np.where((bumps.max(axis=1) > _OF_THE_THING)[..., None], things, -100)),
            "ends": torch.from_numpy(self.ends[chosen]),
            "damage": torch.from_numpy(strengths).float(),
        }


def label(scene: Scene, places) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Say in numbers what is to be read of a scene: where things are, what they are, the background's ends."""
    where = np.full((_MOST, 2), np.nan, np.float32)
    what = np.full((_MOST, len(OF_A_THING)), -100, np.int64)
    for row, (thing, (x, y, _)) in enumerate(zip(drawn_things(scene), places, strict=True)):
        where[row] = x, y
        for column, (name, values) in enumerate(OF_A_THING.items()):
            value = getattr(thing, name)
            if value is not None:
                what[row, column] = values.index(value)
    parts = scene.background.split(" to ")
    ends = np.array([list(BACKGROUNDS).index(part) for part in (parts[0], parts[-1])])
    return where, what, ends


def _bumps(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heights (image, 3, 16, 16) around each thing's centre, and which thing is nearest (image, 16, 16)."""
    centres = CELL * (np.arange(GRID, dtype=np.float32) + 0.5)
    x, y = (places[..., axis, None, None] for axis in (0, 1))
    squared = ((centres[None, :] - x) ** 2 + (centres[:, None] - y) ** 2) / CELL**2
    squared = np.where(np.isnan(squared), np.inf, squared)
    return np.exp(-squared / (2 * _SPREAD**2)), squared.argmin(axis=1)


def judge_loss(network: JudgeNetwork, pixels: Tensor, truth: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Focal loss of where things are + cross-entropies of what they are and of the background + that of the damage."""
    found, attributes, ends, damage = network(pixels)
    what = sum(
        (
            F.cross_entropy(logits, truth["things"][..., column], ignore_index=-100)
            for column, logits in enumerate(attributes.values())
        ),
        torch.zeros(()),
    )
    where = focal_loss(found, truth["found"])
    background = F.cross_entropy(ends.flatten(0, 1), truth["ends"].flatten())
    spoilt = F.binary_cross_entropy_with_logits(damage, truth["damage"])
    error = (damage.detach().sigmoid() - truth["damage"]).abs().mean()
    numbers = {"where": where, "what": what, "background": background, "damage_error": error}
    return where + what + background + spoilt, {name: float(value.detach()) for name, value in numbers.items()}


def focal_loss(logits: Tensor, heights: Tensor) -> Tensor:
    """Find centres, with less blame near them (Law and Deng 2018, equation 1); mean over things.

    A cell is a centre where its height is the largest of its neighbours'; only there is a thing asked for.
    """
    peak = (heights == F.max_pool2d(heights[:, None], 3, stride=1, padding=1)[:, 0]) & (heights > 0.3)
    chance = logits.sigmoid()
    missed = F.softplus(-logits) * (1 - chance).square()
    wrong = F.softplus(logits) * chance.square() * (1 - heights) ** 4
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
    """Write a module's state as safetensors, its real numbers in half precision."""
    state = module.state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({n: (t.half() if t.is_floating_point() else t).contiguous() for n, t in state.items()}, path)
    # The writer lets nobody else read its file.
    path.chmod(0o644)
