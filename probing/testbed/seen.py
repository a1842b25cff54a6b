"""What is seen in a picture, and whether it is what a caption says: attribute by attribute, by rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from probing.testbed.scenes import Scene, Thing, attributes_of

_AXIS = {"left of": "x", "right of": "x", "above": "y", "below": "y", "in a row": "x", "in a column": "y"}


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
    if len(scene.things) == 1:
        judged = _of_equal_things(seen.things, scene)
    else:
        judged = _of_different_things(seen.things, scene)
    judged["background"] = seen.background == scene.background
    return {attribute: judged[attribute] for attribute in attributes_of(scene)}


def _of_equal_things(seen: Sequence[SeenThing], scene: Scene) -> dict[str, bool]:
    (said,) = scene.things
    judged = {name: bool(seen) and all(agree[name] for agree in map(_agreement(said), seen)) for name in _ORDER}
    judged["count"] = len(seen) == scene.count
    return judged


def _of_different_things(seen: Sequence[SeenThing], scene: Scene) -> dict[str, bool]:
    said = scene.things
    if len(seen) < len(said):
        # A thing that is not there has no right attribute.
        return dict.fromkeys((*_ORDER, "relation"), False)
    best: tuple[tuple[int, ...], dict[str, bool]] | None = None
    for matched in permutations(seen, len(said)):
        agreements = [_agreement(thing)(other) for thing, other in zip(said, matched, strict=True)]
        judged = {name: all(agreement[name] for agreement in agreements) for name in _ORDER}
        judged["relation"] = len(seen) == len(said) and _holds(str(scene.relation), matched)
        # What a thing is decides which it is; among equal matches the one that obeys most is meant.
        rank = (*(sum(agreement[name] for agreement in agreements) for name in ("shape", "colour")),)
        key = (sum(rank), sum(agreement["size"] + agreement["texture"] for agreement in agreements),
               int(judged["relation"]), sum(judged.values()))  # fmt: skip
        if best is None or key > best[0]:
            best = (key, judged)
    assert best is not None
    return best[1]


_ORDER = ("colour", "shape", "size", "texture")


def _agreement(said: Thing):
    def compare(seen: SeenThing) -> dict[str, bool]:
        return {name: getattr(said, name) in (None, getattr(seen, name)) for name in _ORDER}

    return compare


def _holds(relation: str, things: Sequence[SeenThing]) -> bool:
    """Things stand along the relation's axis more than across it, in the order in which they are told."""
    along_x = _AXIS[relation] == "x"
    along, across = ([t.x for t in things], [t.y for t in things])[:: 1 if along_x else -1]
    if relation in ("right of", "below"):
        along = along[::-1]
    in_order = all(one < other for one, other in zip(along, along[1:], strict=False))
    return in_order and max(along) - min(along) > max(across) - min(across)
