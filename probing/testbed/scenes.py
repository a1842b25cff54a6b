"""Captioned scenes: a small grammar of captions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (46, 150, 60),
    "blue": (40, 80, 210),
    "yellow": (245, 210, 50),
    "purple": (135, 60, 175),
    "orange": (245, 130, 30),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (244, 244, 244),
    "gray": (150, 150, 150),
    "black": (22, 22, 22),
    "pink": (245, 190, 205),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
SIZES: dict[str, tuple[float, float]] = {"small": (6.5, 8.0), "large": (11.5, 13.0)}
"""Range of the radius, in pixels of the final image."""
TEXTURES = ("plain", "striped", "dotted")
"""Captions omit ``plain``."""
RELATIONS = ("left of", "right of", "above", "below")
"""Relations of two things."""
ARRANGEMENTS = ("in a row", "in a column")
"""Arrangements of three different things, from left to right or from top to bottom."""
_PLACES: dict[str | None, tuple[str, ...]] = {
    None: ("anywhere",),
    "left of": ("left", "right"),
    "right of": ("right", "left"),
    "above": ("top", "bottom"),
    "below": ("bottom", "top"),
    "in a row": ("left", "middle", "right"),
    "in a column": ("top", "middle", "bottom"),
}
PLACES = tuple(dict.fromkeys(place for places in _PLACES.values() for place in places))
NUMBERS = {1: "a", 2: "two", 3: "three"}
ATTRIBUTES = ("colour", "shape", "size", "texture", "count", "relation", "background")
THING_ATTRIBUTES = ("colour", "shape", "size", "texture")


@dataclass(frozen=True)
class Thing:
    """One kind of object in a caption; ``size`` is None if the caption has none."""

    shape: str
    colour: str
    size: str | None = None
    texture: str = "plain"

    @property
    def words(self) -> str:
        parts = (self.size, None if self.texture == "plain" else self.texture, self.colour, self.shape)
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Scene:
    """The content of a caption: ``count`` equal things, two things in a relation, or three in an arrangement.

    ``background`` is a name, or two names as in ``gray to pink``: a gradient from top to bottom.
    """

    things: tuple[Thing, ...]
    background: str
    count: int = 1
    relation: str | None = None

    def __post_init__(self) -> None:
        allowed = {1: (None,), 2: RELATIONS, 3: ARRANGEMENTS}
        if len(self.things) not in allowed:
            raise ValueError(f"A scene has one, two or three kinds of thing, got {len(self.things)}.")
        if self.relation not in allowed[len(self.things)]:
            raise ValueError(
                f"Got relation {self.relation!r} of {len(self.things)} kinds of thing, expected one of "
                f"{allowed[len(self.things)]}."
            )
        if self.count not in NUMBERS or (self.relation is not None and self.count != 1):
            raise ValueError(f"count is 1, 2 or 3, and 1 beside a relation; got {self.count}.")

    @property
    def caption(self) -> str:
        first, *rest = (thing.words for thing in self.things)
        if not rest:
            content = f"{NUMBERS[self.count]} {plural(first) if self.count > 1 else first}"
        elif len(rest) == 1:
            content = f"a {first} {self.relation} a {rest[0]}"
        else:
            content = f"a {first} a {rest[0]} and a {rest[1]} {self.relation}"
        return f"{content} on a {self.background} background"


def plural(words: str) -> str:
    return words + ("es" if words.endswith("s") else "s")


def parse(caption: str) -> Scene:
    """Parse a caption, so that ``parse(scene.caption) == scene``.

    Raises:
        ValueError: No scene has this caption.
    """
    content, on, background = caption.partition(" on a ")
    background, ends, _ = background.partition(" background")
    try:
        if not (on and ends):
            raise ValueError("it has no background")
        scene = _parse_things(content, background)
        if scene.caption != caption or not set(background.split(" to ")) <= set(BACKGROUNDS):
            raise ValueError(f"the nearest caption is {scene.caption!r}")
    except ValueError as error:
        raise ValueError(f"{caption!r} is not the caption of a scene ({error}); write it like {_EXAMPLE!r}.") from None
    return scene


_EXAMPLE = "a small red circle left of a large striped blue star on a gray to pink background"


def _parse_things(content: str, background: str) -> Scene:
    for arrangement in ARRANGEMENTS:
        if content.endswith(f" {arrangement}"):
            listed = content.removesuffix(f" {arrangement}").removeprefix("a ").replace(" and a ", " a ").split(" a ")
            return Scene(tuple(map(_parse_thing, listed)), background, relation=arrangement)
    for relation in RELATIONS:
        first, separator, second = content.partition(f" {relation} a ")
        if separator:
            things = _parse_thing(first.removeprefix("a ")), _parse_thing(second)
            return Scene(things, background, relation=relation)
    number, _, words = content.partition(" ")
    counts = {word: count for count, word in NUMBERS.items()}
    if number not in counts:
        raise ValueError(f"{number!r} is not a number of things")
    singular = {plural(shape): shape for shape in SHAPES}
    *rest, shape = words.split(" ")
    words = " ".join([*rest, singular.get(shape, shape) if counts[number] > 1 else shape])
    return Scene((_parse_thing(words),), background, count=counts[number])


def _parse_thing(words: str) -> Thing:
    *adjectives, colour, shape = ["", *words.split(" ")]
    size = next((word for word in adjectives if word in SIZES), None)
    texture = next((word for word in adjectives if word in TEXTURES), "plain")
    thing = Thing(shape, colour, size, texture)
    if shape not in SHAPES or colour not in COLOURS or thing.words != words:
        raise ValueError(f"{words!r} is not a thing")
    return thing


def vocabulary() -> list[str]:
    """List every word of the captions, sorted."""
    words = {"a", "on", "background", "to", "and", *COLOURS, *BACKGROUNDS, *SHAPES, *SIZES, *NUMBERS.values()}
    words |= set(TEXTURES) - {"plain"}
    words |= {plural(shape) for shape in SHAPES}
    words |= {word for relation in (*RELATIONS, *ARRANGEMENTS) for word in relation.split()}
    return sorted(words)


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene: 45% one, two or three equal things, 40% two in a relation, 15% three in an arrangement.

    Within a kind of scene all captions are equally likely. :func:`contradict` then moves between any two scenes equally
    often in both directions, so that a scene alone does not show whether it contradicts a caption.
    """
    kind = rng.random()
    background = _choice(rng, BACKGROUNDS)
    if rng.random() < 0.5:
        background = f"{background} to {_another(rng, BACKGROUNDS, background)}"
    if kind < 0.45:
        return Scene((_sample_thing(rng),), background, count=int(rng.integers(1, 4)))
    if kind < 0.85:
        return Scene(_sample_things(rng, 2), background, relation=_choice(rng, RELATIONS))
    things = tuple(Thing(thing.shape, thing.colour) for thing in _sample_things(rng, 3))
    return Scene(things, background, relation=_choice(rng, ARRANGEMENTS))


def contradict(scene: Scene, attribute: str, rng: np.random.Generator) -> Scene:
    """Return a scene that differs from ``scene`` in exactly one attribute.

    A relation of two things is reversed; of three things in a row or column, two are swapped.

    Raises:
        ValueError: The caption does not have that attribute (a relation of one thing, a count of two different things),
            or the attribute is unknown.
    """
    if attribute not in attributes_of(scene):
        raise ValueError(f"{scene.caption!r} has no {attribute!r}; its attributes are {attributes_of(scene)}.")
    if attribute == "background":
        return replace(scene, background=_another_background(rng, scene.background))
    if attribute == "count":
        return replace(scene, count=int(_another(rng, NUMBERS, scene.count)))
    if attribute == "relation":
        if len(scene.things) == 3:
            return replace(scene, things=_swapped(rng, scene.things))
        opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
        return replace(scene, relation=opposite[str(scene.relation)])
    position = int(rng.integers(len(scene.things)))
    thing = scene.things[position]
    values = {"colour": COLOURS, "shape": SHAPES, "size": SIZES, "texture": TEXTURES}[attribute]
    changed = [replace(thing, **{attribute: value}) for value in values if value != getattr(thing, attribute)]
    rest = [t for i, t in enumerate(scene.things) if i != position]
    # Two equal things would need a count, so the changed thing must differ from the others.
    changed = [t for t in changed if not any(_alike(t, r) for r in rest)]
    things = list(scene.things)
    things[position] = changed[int(rng.integers(len(changed)))]
    return replace(scene, things=tuple(things))


def canonical(scene: Scene) -> Scene:
    """Describe the same scene from left to right or from top to bottom: two captions can match one image."""
    if scene.relation in (None, *ARRANGEMENTS, "left of", "above"):
        return scene
    reversed_relation = {"right of": "left of", "below": "above"}[str(scene.relation)]
    return Scene(scene.things[::-1], scene.background, relation=reversed_relation)


def places_of(scene: Scene) -> tuple[str, ...]:
    """Return the place of each kind of thing, one of :data:`PLACES`, in the order of the caption."""
    return _PLACES[scene.relation]


def attributes_of(scene: Scene) -> tuple[str, ...]:
    """List the attributes in the caption of a scene."""
    if len(scene.things) == 1:
        return (*THING_ATTRIBUTES, "count", "background")
    if len(scene.things) == 2:
        return (*THING_ATTRIBUTES, "relation", "background")
    return ("colour", "shape", "relation", "background")


def _sample_thing(rng: np.random.Generator) -> Thing:
    return Thing(_choice(rng, SHAPES), _choice(rng, COLOURS), _choice(rng, SIZES), _choice(rng, TEXTURES))


def _sample_things(rng: np.random.Generator, number: int) -> tuple[Thing, ...]:
    while True:
        things = tuple(_sample_thing(rng) for _ in range(number))
        if not any(_alike(things[i], things[j]) for i in range(number) for j in range(i)):
            return things


def _alike(first: Thing, second: Thing) -> bool:
    return (first.shape, first.colour) == (second.shape, second.colour)


def _swapped(rng: np.random.Generator, things: tuple[Thing, ...]) -> tuple[Thing, ...]:
    first, second = rng.choice(len(things), size=2, replace=False)
    moved = list(things)
    moved[first], moved[second] = moved[second], moved[first]
    return tuple(moved)


def _another_background(rng: np.random.Generator, background: str) -> str:
    """Choose another plain background, or another gradient: reversed, or with one of its two colours replaced."""
    names = background.split(" to ")
    if len(names) == 1:
        return _another(rng, BACKGROUNDS, background)
    position = int(rng.integers(3))
    if position == 2:
        names.reverse()
    else:
        names[position] = _choice(rng, [name for name in BACKGROUNDS if name not in names])
    return " to ".join(names)


def _choice(rng: np.random.Generator, values: Iterable[Any]) -> Any:
    values = list(values)
    return values[int(rng.integers(len(values)))]


def _another(rng: np.random.Generator, values: Iterable[Any], but: Any) -> Any:
    return _choice(rng, [value for value in values if value != but])
