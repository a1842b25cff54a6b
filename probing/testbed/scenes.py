"""Captioned scenes: a small grammar of what can be said, and a renderer that draws it.

A scene is drawn at four times its size with integer polygon coordinates and averaged down, so the same
seed gives the same bytes on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

RESOLUTION = 64
_OVERSAMPLING = 4

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
"""Range of the radius, in pixels of the finished image."""
RELATIONS = ("left of", "right of", "above", "below")
NUMBERS = {1: "a", 2: "two", 3: "three"}

_COLOUR_JITTER = 10
_MARGIN = 1.5
_ATTEMPTS = 200


@dataclass(frozen=True)
class Thing:
    """What the caption says of one kind of object."""

    shape: str
    colour: str
    size: str


@dataclass(frozen=True)
class Scene:
    """What a caption says: one thing, ``count`` equal things, or two things in a relation."""

    things: tuple[Thing, ...]
    background: str
    count: int = 1
    relation: str | None = None

    def __post_init__(self) -> None:
        if len(self.things) not in (1, 2):
            raise ValueError(f"A scene has one or two kinds of thing, got {len(self.things)}.")
        if (len(self.things) == 2) != (self.relation is not None):
            raise ValueError("A relation needs two things, and two things need a relation.")
        if self.count not in NUMBERS or (self.relation is not None and self.count != 1):
            raise ValueError(f"count is 1, 2 or 3, and 1 beside a relation; got {self.count}.")

    @property
    def caption(self) -> str:
        first = self.things[0]
        if self.relation is not None:
            second = self.things[1]
            said = (
                f"a {first.size} {first.colour} {first.shape} {self.relation} "
                f"a {second.size} {second.colour} {second.shape}"
            )
        else:
            shape = plural(first.shape) if self.count > 1 else first.shape
            said = f"{NUMBERS[self.count]} {first.size} {first.colour} {shape}"
        return f"{said} on a {self.background} background"


def plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def vocabulary() -> list[str]:
    """List every word that a caption can hold, sorted."""
    words = {"a", "on", "background", *COLOURS, *BACKGROUNDS, *SHAPES, *SIZES, *NUMBERS.values()}
    words |= {plural(shape) for shape in SHAPES}
    words |= {word for relation in RELATIONS for word in relation.split()}
    return sorted(words)


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene: 30% one thing, 25% two or three equal things, 45% two things in a relation."""
    kind = rng.random()
    background = _choice(rng, BACKGROUNDS)
    first = _sample_thing(rng)
    if kind < 0.30:
        return Scene((first,), background)
    if kind < 0.55:
        return Scene((first,), background, count=int(rng.integers(2, 4)))
    second = _sample_thing(rng)
    while (second.shape, second.colour) == (first.shape, first.colour):
        second = _sample_thing(rng)
    return Scene((first, second), background, relation=_choice(rng, RELATIONS))


ATTRIBUTES = ("colour", "shape", "size", "count", "relation", "background")


def contradict(scene: Scene, attribute: str, rng: np.random.Generator) -> Scene:
    """Return a scene that the caption of ``scene`` describes wrongly in exactly one attribute.

    Raises:
        ValueError: The scene says nothing of that attribute (a relation of one thing, a count of two
            different things), or the attribute is unknown.
    """
    if attribute not in attributes_of(scene):
        raise ValueError(f"{scene.caption!r} says nothing of {attribute!r}; it has {attributes_of(scene)}.")
    if attribute == "background":
        return replace(scene, background=_other(rng, BACKGROUNDS, scene.background))
    if attribute == "count":
        return replace(scene, count=int(_other(rng, NUMBERS, scene.count)))
    if attribute == "relation":
        opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
        return replace(scene, relation=opposite[str(scene.relation)])
    position = int(rng.integers(len(scene.things)))
    thing = scene.things[position]
    values = {"colour": COLOURS, "shape": SHAPES, "size": SIZES}[attribute]
    others = [replace(thing, **{attribute: value}) for value in values if value != getattr(thing, attribute)]
    rest = [t for i, t in enumerate(scene.things) if i != position]
    # Two equal things would read as a count: the changed thing stays unlike its neighbour.
    others = [t for t in others if all((t.shape, t.colour) != (r.shape, r.colour) for r in rest)]
    things = list(scene.things)
    things[position] = others[int(rng.integers(len(others)))]
    return replace(scene, things=tuple(things))


def attributes_of(scene: Scene) -> tuple[str, ...]:
    """Name the attributes that the scene's caption speaks of."""
    if scene.relation is not None:
        return ("colour", "shape", "size", "relation", "background")
    return ("colour", "shape", "size", "count", "background")


def render(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Draw the scene as a 64×64 RGB image; places, exact sizes, tilts and tints come from ``rng``."""
    scale = _OVERSAMPLING
    background = _jitter(BACKGROUNDS[scene.background], rng)
    canvas = Image.new("RGB", (RESOLUTION * scale, RESOLUTION * scale), background)
    draw = ImageDraw.Draw(canvas)
    for thing, (x, y, radius) in zip(_drawn_things(scene), _layout(scene, rng), strict=True):
        tilt = float(rng.uniform(-0.15, 0.15))
        outline = [
            (round(scale * (x + radius * px)), round(scale * (y + radius * py)))
            for px, py in _outline(thing.shape, tilt)
        ]
        draw.polygon(outline, fill=_jitter(COLOURS[thing.colour], rng))
    return canvas.reduce(scale)


def _drawn_things(scene: Scene) -> tuple[Thing, ...]:
    return scene.things * scene.count if scene.relation is None else scene.things


def _sample_thing(rng: np.random.Generator) -> Thing:
    return Thing(_choice(rng, SHAPES), _choice(rng, COLOURS), _choice(rng, SIZES))


def _choice(rng, values) -> str:
    values = list(values)
    return values[int(rng.integers(len(values)))]


def _other(rng, values, but):
    return _choice(rng, [value for value in values if value != but])


def _jitter(colour: tuple[int, int, int], rng: np.random.Generator) -> tuple[int, int, int]:
    shift = rng.integers(-_COLOUR_JITTER, _COLOUR_JITTER + 1, size=3)
    red, green, blue = (int(np.clip(c + s, 0, 255)) for c, s in zip(colour, shift, strict=True))
    return red, green, blue


def _layout(scene: Scene, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Place the things without overlap, as (x, y, radius) in pixels; x to the right, y down."""
    things = _drawn_things(scene)
    while True:
        radii = [float(rng.uniform(*SIZES[thing.size])) for thing in things]
        for _ in range(_ATTEMPTS):
            places = [tuple(rng.uniform(radius + _MARGIN, RESOLUTION - radius - _MARGIN, size=2)) for radius in radii]
            if _apart(places, radii) and _relation_holds(scene.relation, places, radii):
                return [(float(x), float(y), r) for (x, y), r in zip(places, radii, strict=True)]


def _apart(places, radii) -> bool:
    for i in range(len(places)):
        for j in range(i):
            gap = math.dist(places[i], places[j]) - radii[i] - radii[j]
            if gap < _MARGIN:
                return False
    return True


def _relation_holds(relation: str | None, places, radii) -> bool:
    """A relation holds when the things are clear of each other along its axis and near in the other."""
    if relation is None:
        return True
    (x0, y0), (x1, y1) = places
    along, across = (x1 - x0, y1 - y0) if relation in ("left of", "right of") else (y1 - y0, x1 - x0)
    if relation in ("right of", "below"):
        along = -along
    return along > sum(radii) + _MARGIN and abs(across) < 0.6 * along


def _outline(shape: str, tilt: float) -> list[tuple[float, float]]:
    """Corner points of a shape in the unit disc, turned by ``tilt`` radians."""
    if shape == "circle":
        points = _star_points([1.0] * 40, 0.0)
    elif shape == "square":
        points = _star_points([1.0] * 4, math.pi / 4)
    elif shape == "triangle":
        points = _star_points([1.0] * 3, -math.pi / 2)
    elif shape == "star":
        points = _star_points([1.0, 0.42] * 5, -math.pi / 2)
    elif shape == "cross":
        arm = 0.32
        reach = math.sqrt(1 - arm**2)
        corner = [(arm, -reach), (arm, -arm), (reach, -arm), (reach, arm), (arm, arm), (arm, reach)]
        points = corner + [(-x, -y) for x, y in corner]
    else:
        raise ValueError(f"Unknown shape {shape!r}; known are {', '.join(SHAPES)}.")
    cosine, sine = math.cos(tilt), math.sin(tilt)
    return [(cosine * x - sine * y, sine * x + cosine * y) for x, y in points]


def _star_points(radii: list[float], start: float) -> list[tuple[float, float]]:
    step = 2 * math.pi / len(radii)
    return [(r * math.cos(start + i * step), r * math.sin(start + i * step)) for i, r in enumerate(radii)]
