"""Compare the reading of an image with a caption, one attribute at a time, by fixed rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

from probing.testbed.scenes import THING_ATTRIBUTES, Scene, Thing, attributes_of

_HORIZONTAL = ("left of", "right of", "in a row")
_REVERSED = ("right of", "below")


@dataclass(frozen=True)
class DetectedThing:
    """One thing in an image; ``x`` to the right and ``y`` down, in pixels."""

    shape: str
    colour: str
    size: str
    texture: str
    x: float
    y: float


@dataclass(frozen=True)
class Reading:
    """The content of an image.

    Attributes:
        things: From left to right.
        background: As in a caption: ``white``, or ``gray to pink`` from top to bottom.
        damage: Strength of degradation, from 0 to 1.
    """

    things: tuple[DetectedThing, ...]
    background: str
    damage: float = 0.0

    @property
    def fidelity(self) -> float:
        """One minus the damage."""
        return 1.0 - self.damage


def check_caption(reading: Reading, scene: Scene) -> dict[str, bool]:
    """Check each attribute in the caption of a scene against an image.

    The detected things are assigned to the things of the caption so that as many attributes as possible agree. An
    attribute is right if it is right for every thing. If the caption has several equal things, every detected thing
    counts. A relation requires exactly the things of the caption.

    Returns:
        Whether each attribute is right, by name.
    """
    check = _check_equal_things if len(scene.things) == 1 else _check_different_things
    result = check(reading.things, scene)
    result["background"] = reading.background == scene.background
    return {attribute: result[attribute] for attribute in attributes_of(scene)}


def _check_equal_things(detected: Sequence[DetectedThing], scene: Scene) -> dict[str, bool]:
    (expected,) = scene.things
    result = {
        name: bool(detected) and all(_agrees(expected, thing, name) for thing in detected) for name in THING_ATTRIBUTES
    }
    result["count"] = len(detected) == scene.count
    return result


def _check_different_things(detected: Sequence[DetectedThing], scene: Scene) -> dict[str, bool]:
    if len(detected) < len(scene.things):
        # A missing thing has no right attribute.
        return dict.fromkeys((*THING_ATTRIBUTES, "relation"), False)

    def rank(assigned: tuple[DetectedThing, ...]) -> tuple[int, int, bool]:
        # Shape and colour identify a thing; size and texture break ties, then the relation.
        agreeing = {
            name: sum(_agrees(*pair, name) for pair in zip(scene.things, assigned, strict=True))
            for name in THING_ATTRIBUTES
        }
        return (
            agreeing["shape"] + agreeing["colour"],
            agreeing["size"] + agreeing["texture"],
            _holds(str(scene.relation), assigned),
        )

    assigned = max(permutations(detected, len(scene.things)), key=rank)
    result = {
        name: all(_agrees(*pair, name) for pair in zip(scene.things, assigned, strict=True))
        for name in THING_ATTRIBUTES
    }
    result["relation"] = len(detected) == len(scene.things) and _holds(str(scene.relation), assigned)
    return result


def _agrees(expected: Thing, detected: DetectedThing, name: str) -> bool:
    return getattr(expected, name) in (None, getattr(detected, name))


def _holds(relation: str, things: Sequence[DetectedThing]) -> bool:
    """Check that things are in order along the relation's axis, and farther apart along it than across it."""
    x, y = [thing.x for thing in things], [thing.y for thing in things]
    along, across = (x, y) if relation in _HORIZONTAL else (y, x)
    if relation in _REVERSED:
        along = along[::-1]
    in_order = all(first < second for first, second in pairwise(along))
    return in_order and max(along) - min(along) > max(across) - min(across)
