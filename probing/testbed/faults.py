"""Where a rendered picture is wrong or damaged: the renderer's truth, in the place of people's heat maps."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from probing.testbed.degradations import degrade
from probing.testbed.render import RESOLUTION, Place, draw
from probing.testbed.scenes import Scene

MISALIGNMENT, ARTIFACTS = "misalignment", "artifacts"
KINDS = (MISALIGNMENT, ARTIFACTS)


def misalignment_map(shown: Scene, wanted: Scene, seed: tuple[int, ...]) -> Float[np.ndarray, "row column"] | None:
    """Mark the discs of the things that contradict a caption, or all that is no thing where the background does.

    Args:
        shown: The scene that was rendered.
        wanted: The scene of the caption.
        seed: Of the rendering.

    Returns:
        1 where the picture is wrong and 0 elsewhere; None for a wrong number of things, which is nowhere in particular.
    """
    if shown == wanted:
        return np.zeros((RESOLUTION, RESOLUTION), dtype=np.float32)
    if shown.count != wanted.count:
        return None
    _, places = draw(shown, np.random.default_rng(seed))
    if shown.background != wanted.background:
        return (~_discs(places)).astype(np.float32)
    if shown.relation != wanted.relation:
        return _discs(places).astype(np.float32)
    kinds = len(shown.things)
    differ = [one != other for one, other in zip(shown.things, wanted.things, strict=True)]
    # Equal things are drawn one after another.
    return _discs([place for number, place in enumerate(places) if differ[number % kinds]]).astype(np.float32)


def damage_map(shown: Scene, kind: str, strength: float, seed: tuple[int, ...]) -> Float[np.ndarray, "row column"]:
    """Return how far a degraded picture is from the clean one, the mean over colours, in [0, 1]."""
    rng = np.random.default_rng(seed)
    clean, _ = draw(shown, rng)
    damaged = degrade(clean, kind, strength, rng)
    difference = np.asarray(damaged, dtype=np.float32) - np.asarray(clean, dtype=np.float32)
    return np.abs(difference).mean(axis=2) / 255


def _discs(places: list[Place]) -> Bool[np.ndarray, "row column"]:
    rows, columns = np.mgrid[:RESOLUTION, :RESOLUTION] + 0.5
    inside = [np.hypot(columns - x, rows - y) <= radius for x, y, radius in places]
    marked: np.ndarray = np.any(inside, axis=0)
    return marked
