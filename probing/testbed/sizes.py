"""The family's members: sizes, seeds, and how their trainings are called."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Width is 32 channels a head; ``dual`` is how many of the first blocks attend to the image twice, as SD3.5-M's."""

    heads: int
    blocks: int
    dual: int = 0


SIZES = {"xs": Size(2, 6), "s": Size(3, 8), "m": Size(4, 8, dual=4), "l": Size(5, 12)}
SEEDS = {"xs": (0, 1), "s": (0, 1), "m": (0,), "l": (0,)}
"""Trainings of each size; they differ in initial weights, order of scenes, and noise."""


def run_name(size: str, seed: int = 0) -> str:
    """Name a training: ``xs``, or ``xs-seed1`` where it is not the first."""
    return size if seed == 0 else f"{size}-seed{seed}"


def size_of(name: str) -> str:
    """Read the size from the name of a training or of weights along its way."""
    return name.split("-")[0]


def is_along(name: str) -> bool:
    """Tell whether weights were kept along the way of a training, as ``xs-step00650`` were."""
    return "-step" in name
