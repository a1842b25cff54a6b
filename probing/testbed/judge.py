"""The judge: a small convolutional network that tells what things a picture shows, where, and how much it is spoilt.

It knows renders only. It shares no weights, no pictures and no captions with any backbone, and reads a picture
without being told a caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from probing.errors import UserError
from probing.testbed.rates import rate
from probing.testbed.render import RESOLUTION
from probing.testbed.scenes import ATTRIBUTES, BACKGROUNDS, COLOURS, SHAPES, SIZES, TEXTURES, Scene, parse
from probing.testbed.seen import Reading, SeenThing, obeys
from probing.testbed.tensors import to_tensor

WEIGHTS = Path(__file__).parent / "weights" / "judge" / "judge.safetensors"
CELL = 4
"""Pixels of a cell of the grid on which things are found."""
GRID = RESOLUTION // CELL
OF_A_THING: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "texture": TEXTURES,
}
WHOLE = "whole caption"
"""In tables of judged accuracy: every attribute that the caption speaks of."""
EACH = "all attributes"
"""There too: every attribute of every caption, counted alike."""
_ENDS = tuple(BACKGROUNDS)
_FOUND = 0.5
_BATCH = 128


class JudgeNetwork(nn.Module):
    """Where things are, what they are, the background's two ends, and the strength of the damage."""

    def __init__(self, fine: int = 48, coarse: int = 96) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(24, fine, 3, stride=2, padding=1), nn.ReLU()
        )
        self.fine = nn.Sequential(*[_Residual(fine) for _ in range(3)])
        self.down = nn.Sequential(nn.Conv2d(fine, coarse, 3, stride=2, padding=1), nn.ReLU())
        self.coarse = nn.Sequential(*[_Residual(coarse) for _ in range(2)])
        self.up = nn.Conv2d(coarse, fine, 1)
        first = nn.Conv2d(fine, coarse, 3, padding=1)
        last = nn.Conv2d(coarse, 1 + sum(map(len, OF_A_THING.values())), 1)
        assert last.bias is not None
        # Few cells hold a thing; the first steps need not learn that.
        nn.init.constant_(last.bias[:1], -4.0)
        self.of_cells = nn.Sequential(first, nn.ReLU(), last)
        self.of_ends = nn.Linear(coarse * GRID // 2, 2 * len(_ENDS))
        self.of_damage = nn.Sequential(nn.Linear(2 * (fine + coarse), 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
        """Read pixels (image, 3, 64, 64) in [−1, 1].

        Returns:
            Logits that a thing's centre is in a cell (image, 16, 16); logits of each attribute
            (image, value, 16, 16); logits of the background's top and bottom (image, 2, 4); damage (image,), a logit.
        """
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        fine = self.fine(self.stem(pixels))
        coarse = self.coarse(self.down(fine))
        cells = self.of_cells(fine + F.interpolate(self.up(coarse), scale_factor=2.0)).float()
        found, *attributes = cells.split([1, *map(len, OF_A_THING.values())], dim=1)
        # A background is a row's colour where nothing stands before it: both the mean and the order of rows matter.
        ends = self.of_ends(coarse.mean(dim=3).flatten(1)).float().unflatten(1, (2, len(_ENDS)))
        pooled = torch.cat([*(of(t) for t in (fine, coarse) for of in (_mean, _largest))], dim=1)
        damage = self.of_damage(pooled).float()[:, 0]
        return found[:, 0], dict(zip(OF_A_THING, attributes, strict=True)), ends, damage


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.layers(x))


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


def _largest(x: Tensor) -> Tensor:
    return x.amax(dim=(2, 3))


class Judge:
    """Reads pictures.

    Args:
        network: Trained; it is put in evaluation mode.
    """

    def __init__(self, network: JudgeNetwork) -> None:
        self.network = network.eval()

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> Judge:
        """Load the shipped weights, or others.

        Raises:
            UserError: They are not there.
        """
        if not path.exists():
            raise UserError(f"There are no weights {path}; train them with python -m probing.testbed.train judge.")
        network = JudgeNetwork()
        network.load_state_dict(
            {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()}
        )
        return cls(network)

    def read(self, images: Sequence[Image.Image]) -> list[Reading]:
        """Read RGB images; those of other sizes are brought to 64×64 first."""
        readings: list[Reading] = []
        for start in range(0, len(images), _BATCH):
            readings += self.read_pixels(to_tensor(images[start : start + _BATCH]))
        return readings

    def obeys(self, image: Image.Image, scene: Scene) -> dict[str, bool]:
        """Tell for each attribute that the caption of ``scene`` speaks of whether a picture obeys it."""
        return obeys(self.read([image])[0], scene)

    @torch.inference_mode()
    def read_pixels(self, pixels: Tensor) -> list[Reading]:
        """Read pixels (image, 3, 64, 64) in [−1, 1]."""
        found, attributes, ends, damage = self.network(pixels)
        # A thing is where its neighbourhood's largest logit is; centres of things are at least 14 pixels apart.
        peak = (found == F.max_pool2d(found[:, None], 5, stride=1, padding=2)[:, 0]) & (found.sigmoid() > _FOUND)
        best = {name: logits.argmax(dim=1).numpy() for name, logits in attributes.items()}
        named = ends.argmax(dim=2).numpy()
        strength = damage.sigmoid().numpy()
        readings = []
        for number in range(len(pixels)):
            things = []
            for row, column in peak[number].nonzero().tolist():
                said = {name: OF_A_THING[name][best[name][number, row, column]] for name in OF_A_THING}
                things.append(SeenThing(**said, x=CELL * (column + 0.5), y=CELL * (row + 0.5)))
            top, bottom = (_ENDS[end] for end in named[number])
            background = top if top == bottom else f"{top} to {bottom}"
            in_order = tuple(sorted(things, key=lambda thing: (thing.x, thing.y)))
            readings.append(Reading(in_order, background, float(strength[number])))
        return readings


def judged_accuracy(
    images: Sequence[Image.Image], captions: Sequence[str], *, judge: Judge | None = None
) -> pd.DataFrame:
    """Measure how often pictures obey their captions, by the judge.

    Args:
        images: RGB.
        captions: One an image, of the scenes' grammar.
        judge: The shipped one if None.

    Returns:
        One row an attribute, one of all of them together, and one of the whole caption: ``attribute, accuracy,
        ci_low, ci_high, n``, the interval that of :func:`probing.testbed.rates.rate` over captions, ``n`` how many
        pictures' captions speak of it (of all together: how many attributes they speak of).
    """
    if len(images) != len(captions):
        raise ValueError(f"Got {len(images)} images and {len(captions)} captions; there is one caption an image.")
    readings = (judge or Judge.load()).read(images)
    return accuracy_table([obeys(seen, parse(said)) for seen, said in zip(readings, captions, strict=True)], captions)


def accuracy_table(judged: Sequence[dict[str, bool]], groups: Sequence[str]) -> pd.DataFrame:
    """Summarise what :func:`probing.testbed.seen.obeys` says of many pictures, as :func:`judged_accuracy` does."""
    kinds: dict[str, list[list[bool]]] = {
        **{name: [[of[name]] if name in of else [] for of in judged] for name in ATTRIBUTES},
        EACH: [list(of.values()) for of in judged],
        WHOLE: [[all(of.values())] for of in judged],
    }
    rows = []
    for attribute, right in kinds.items():
        if any(right):
            of = rate(np.concatenate(right), np.repeat(groups, [len(values) for values in right]))
            rows.append((attribute, of.estimate, of.low, of.high, of.n))
    return pd.DataFrame(rows, columns=["attribute", "accuracy", "ci_low", "ci_high", "n"])
