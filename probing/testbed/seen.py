"""What is seen in a picture, and whether it is what a caption says: attribute by attribute, by rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

from probing.testbed.scenes import Scene, Thing, attributes_of

_OF_A_THING = ("colour", "shape", "size", "texture")
_ALONG_X = ("left of", "right of", "in a row")
_BACKWARDS = ("right of", "below")


@dataclass(frozen=True)
class SeenThing:
    """One thing in a picture; ``x`` to the right and ``y`` down, in pixels."""

    shape: str
    colour: str
    size: str
    texture: str
    x: float
    y: float


@dataclass(frozen=True)
class Reading:
    """What is seen in a picture.

    Attributes:
        things: From left to right.
        background: As a caption names it: ``white``, or ``gray to pink`` from top to bottom.
        damage: Strength of what spoils the picture, from 0 to 1.
    """

    things: tuple[SeenThing, ...]
    background: str
    damage: float = 0.0

    @property
    def fidelity(self) -> float:
        """1 where nothing is spoilt."""
        return 1.0 - self.damage


def obeys(seen: Reading, scene: Scene) -> dict[str, bool]:
    """Tell for each attribute that the caption of ``scene`` speaks of whether the picture obeys it.

    Things seen are matched with things said so that most agrees; an attribute is right where it is right of every
    thing. Of equal things every one counts, whatever their number; a relation wants exactly the things that are said.
    """
    judged = _equal_things(seen.things, scene) if len(scene.things) == 1 else _different_things(seen.things, scene)
    judged["background"] = seen.background == scene.background
    return {attribute: judged[attribute] for attribute in attributes_of(scene)}


def _equal_things(seen: Sequence[SeenThing], scene: Scene) -> dict[str, bool]:
    (said,) = scene.things
    judged = {name: bool(seen) and all(_agrees(said, thing, name) for thing in seen) for name in _OF_A_THING}
    judged["count"] = len(seen) == scene.count
    return judged


def _different_things(seen: Sequence[SeenThing], scene: Scene) -> dict[str, bool]:
    if len(seen) < len(scene.things):
        # A thing that is not there has no right attribute.
        return dict.fromkeys((*_OF_A_THING, "relation"), False)

    def rank(matched: tuple[SeenThing, ...]) -> tuple[int, int, bool]:
        # Shape and colour tell which thing is meant, then size and texture; in doubt the relation holds.
        agreeing = {
            name: sum(_agrees(*pair, name) for pair in zip(scene.things, matched, strict=True)) for name in _OF_A_THING
        }
        return (
            agreeing["shape"] + agreeing["colour"],
            agreeing["size"] + agreeing["texture"],
            _holds(str(scene.relation), matched),
        )

    matched = max(permutations(seen, len(scene.things)), key=rank)
    judged = {
        name: all(_agrees(said, thing, name) for said, thing in zip(scene.things, matched, strict=True))
        for name in _OF_A_THING
    }
    judged["relation"] = len(seen) == len(scene.things) and _holds(str(scene.relation), matched)
    return judged


def _agrees(said: Thing, seen: SeenThing, name: str) -> bool:
    return getattr(said, name) in (None, getattr(seen, name))


def _holds(relation: str, things: Sequence[SeenThing]) -> bool:
    """Things stand along the relation's axis more than across it, in the order in which they are told."""
    x, y = [thing.x for thing in things], [thing.y for thing in things]
    along, across = (x, y) if relation in _ALONG_X else (y, x)
    if relation in _BACKWARDS:
        along = along[::-1]
    in_order = all(one < other for one, other in pairwise(along))
    return in_order and max(along) - min(along) > max(across) - min(across)
