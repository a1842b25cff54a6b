"""The models of the family: sizes, seeds, and names of trainings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Shape of an MMDiT: 32 channels for each head; the first ``dual`` blocks have dual attention, as in SD3.5-M."""

    heads: int
    blocks: int
    dual: int = 0


SIZES = {"xs": Size(2, 6), "s": Size(3, 8), "m": Size(4, 8, dual=4), "l": Size(5, 12)}
SEEDS = {"xs": (0, 1), "s": (0, 1), "m": (0,), "l": (0,)}
"""Seeds of each size; they decide initial weights, order of scenes, and noise."""


def run_name(size: str, seed: int = 0) -> str:
    """Name a training: ``xs``, or ``xs-seed1`` for a further seed."""
    return size if seed == 0 else f"{size}-seed{seed}"


def size_of(name: str) -> str:
    """Read the size from the name of a training or of a checkpoint along it."""
    return name.split("-")[0]


def is_along(name: str) -> bool:
    """Return whether a name is that of a checkpoint along a training, such as ``xs-step00650``."""
    return "-step" in name
