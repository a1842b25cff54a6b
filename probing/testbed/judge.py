"""The judge: a small convolutional network that reads the things, their positions and the degradation of an image.

It is trained on renders only. It shares no weights and no images with any backbone, and it gets no captions.
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
from probing.shipped import WEIGHTS as SHIPPED
from probing.testbed.caption_check import DetectedThing, Reading, check_caption
from probing.testbed.rates import rate
from probing.testbed.render import RESOLUTION
from probing.testbed.scenes import ATTRIBUTES, BACKGROUNDS, COLOURS, SHAPES, SIZES, TEXTURES, parse
from probing.testbed.tensors import to_tensor

WEIGHTS = SHIPPED / "judge" / "judge.safetensors"
CELL = 4
"""Side of a cell of the detection grid, in pixels."""
GRID = RESOLUTION // CELL
THING_CLASSES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "texture": TEXTURES,
}
WHOLE = "whole caption"
"""Row of accuracy tables: every attribute of a caption is right."""
EACH = "all attributes"
"""Row of accuracy tables: every attribute of every caption counts once."""
_ENDS = tuple(BACKGROUNDS)
_FOUND = 0.5
_BATCH = 128


class JudgeNetwork(nn.Module):
    """Predicts positions and attributes of things, the background at top and bottom, and the degradation."""

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
        last = nn.Conv2d(coarse, 1 + sum(map(len, THING_CLASSES.values())), 1)
        assert last.bias is not None
        # Few cells hold a thing: start from a low probability.
        nn.init.constant_(last.bias[:1], -4.0)
        self.of_cells = nn.Sequential(first, nn.ReLU(), last)
        self.of_ends = nn.Linear(coarse * GRID // 2, 2 * len(_ENDS))
        self.of_damage = nn.Sequential(nn.Linear(2 * (fine + coarse), 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
        """Read pixels (image, 3, 64, 64) in [−1, 1].

        Returns:
            Logits of a thing's centre in each cell (image, 16, 16); logits of each attribute (image, value, 16, 16);
            logits of the background at top and bottom (image, 2, 4); logit of the damage (image,).
        """
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        fine = self.fine(self.stem(pixels))
        coarse = self.coarse(self.down(fine))
        cells = self.of_cells(fine + F.interpolate(self.up(coarse), scale_factor=2.0)).float()
        found, *attributes = cells.split([1, *map(len, THING_CLASSES.values())], dim=1)
        # The background at an end is the colour of its rows, so keep the order of rows.
        ends = self.of_ends(coarse.mean(dim=3).flatten(1)).float().unflatten(1, (2, len(_ENDS)))
        pooled = torch.cat([*(pool(t) for t in (fine, coarse) for pool in (_mean, _largest))], dim=1)
        damage = self.of_damage(pooled).float()[:, 0]
        return found[:, 0], dict(zip(THING_CLASSES, attributes, strict=True)), ends, damage


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
    """Reads images.

    Args:
        network: Trained; switched to evaluation mode.
    """

    def __init__(self, network: JudgeNetwork) -> None:
        self.network = network.eval()

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> Judge:
        """Load weights, by default the shipped ones.

        Raises:
            UserError: The file is missing.
        """
        if not path.exists():
            raise UserError(f"The weights {path} are missing; run python -m probing.testbed.train judge first.")
        network = JudgeNetwork()
        network.load_state_dict(
            {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()}
        )
        return cls(network)

    def read(self, images: Sequence[Image.Image]) -> list[Reading]:
        """Read images; other sizes are resized to 64×64 first."""
        readings: list[Reading] = []
        for start in range(0, len(images), _BATCH):
            readings += self.read_pixels(to_tensor(images[start : start + _BATCH]))
        return readings

    @torch.inference_mode()
    def read_pixels(self, pixels: Tensor) -> list[Reading]:
        """Read pixels (image, 3, 64, 64) in [−1, 1]."""
        found, attributes, ends, damage = self.network(pixels)
        # A thing is at the largest logit of its neighbourhood; centres of things are at least 14 pixels apart.
        peak = (found == F.max_pool2d(found[:, None], 5, stride=1, padding=2)[:, 0]) & (found.sigmoid() > _FOUND)
        best = {name: logits.argmax(dim=1).numpy() for name, logits in attributes.items()}
        backgrounds = ends.argmax(dim=2).numpy()
        strength = damage.sigmoid().numpy()
        readings = []
        for number in range(len(pixels)):
            things = []
            for row, column in peak[number].nonzero().tolist():
                classes = {name: THING_CLASSES[name][best[name][number, row, column]] for name in THING_CLASSES}
                things.append(DetectedThing(**classes, x=CELL * (column + 0.5), y=CELL * (row + 0.5)))
            top, bottom = (_ENDS[end] for end in backgrounds[number])
            background = top if top == bottom else f"{top} to {bottom}"
            in_order = tuple(sorted(things, key=lambda thing: (thing.x, thing.y)))
            readings.append(Reading(in_order, background, float(strength[number])))
        return readings


def judged_accuracy(
    images: Sequence[Image.Image], captions: Sequence[str], *, judge: Judge | None = None
) -> pd.DataFrame:
    """Measure how often images match their captions, according to the judge.

    Args:
        images: RGB.
        captions: One for each image, in the grammar of the scenes.
        judge: The shipped one if None.

    Returns:
        One row for each attribute, one for all attributes and one for the whole caption: ``attribute, accuracy, ci_low,
        ci_high, n``. The interval is that of :func:`probing.testbed.rates.rate` over captions. ``n`` is the number of
        captions with the attribute (for all attributes: the number of attributes).

    Raises:
        ValueError: The numbers of images and captions differ.
    """
    if len(images) != len(captions):
        raise ValueError(f"Got {len(images)} images and {len(captions)} captions; give one caption for each image.")
    readings = (judge or Judge.load()).read(images)
    checks = [check_caption(reading, parse(caption)) for reading, caption in zip(readings, captions, strict=True)]
    return accuracy_table(checks, captions)


def accuracy_table(checks: Sequence[dict[str, bool]], groups: Sequence[str]) -> pd.DataFrame:
    """Summarise the results of :func:`probing.testbed.caption_check.check_caption`, one for each image.

    Args:
        checks: The results.
        groups: Caption of each image; results of one caption are dependent.

    Returns:
        A table as of :func:`judged_accuracy`.
    """
    by_row: dict[str, list[list[bool]]] = {
        **{name: [[check[name]] if name in check else [] for check in checks] for name in ATTRIBUTES},
        EACH: [list(check.values()) for check in checks],
        WHOLE: [[all(check.values())] for check in checks],
    }
    rows = []
    for attribute, right in by_row.items():
        if any(right):
            share = rate(np.concatenate(right), np.repeat(groups, [len(values) for values in right]))
            rows.append((attribute, share.estimate, share.low, share.high, share.n))
    return pd.DataFrame(rows, columns=["attribute", "accuracy", "ci_low", "ci_high", "n"])
