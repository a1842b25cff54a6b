"""Render a scene; the same seed gives the same bytes.

A scene is drawn at four times its size with integer coordinates and colours, then averaged down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from probing.testbed.scenes import ARRANGEMENTS, BACKGROUNDS, COLOURS, SIZES, Scene, Thing

RESOLUTION = 64
_OVERSAMPLING = 4
_SIDE = RESOLUTION * _OVERSAMPLING
_COLOUR_JITTER = 10
_MARGIN = 1.5
_ATTEMPTS = 200
_DEFAULT_RADIUS = (6.8, 8.6)
"""Range of the radius if the caption has no size; three such things fit side by side."""
_STRIPE = 12
_DOT_RADIUS, _DOT_SPACING = 6, 22
"""Sizes of textures, in pixels of the larger drawing."""

Place = tuple[float, float, float]
"""x to the right, y down, and radius, in pixels of the final image."""


def render(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Render a scene as a 64×64 RGB image; ``rng`` draws places, exact sizes, tilts and tints."""
    return draw(scene, rng)[0]


def draw(scene: Scene, rng: np.random.Generator) -> tuple[Image.Image, list[Place]]:
    """Render a scene; also return the place of each thing, in the order of the caption."""
    canvas = _background(scene.background, rng)
    places = _layout(scene, rng)
    for thing, (x, y, radius) in zip(drawn_things(scene), places, strict=True):
        tilt = float(rng.uniform(-0.15, 0.15))
        outline = [
            (round(_OVERSAMPLING * (x + radius * px)), round(_OVERSAMPLING * (y + radius * py)))
            for px, py in _outline(thing.shape, tilt)
        ]
        colour = _jitter(COLOURS[thing.colour], rng)
        if thing.texture == "plain":
            ImageDraw.Draw(canvas).polygon(outline, fill=colour)
            continue
        mask = Image.new("L", canvas.size)
        ImageDraw.Draw(mask).polygon(outline, fill=255)
        shift = int(rng.integers(0, _DOT_SPACING))
        canvas.paste(_texture(thing.texture, colour, shift), mask=mask)
    return canvas.reduce(_OVERSAMPLING), places


def _background(name: str, rng: np.random.Generator) -> Image.Image:
    colours = [_jitter(BACKGROUNDS[part], rng) for part in name.split(" to ")]
    if len(colours) == 1:
        return Image.new("RGB", (_SIDE, _SIDE), colours[0])
    top, bottom = np.array(colours)
    down = np.arange(_SIDE)[:, None]
    rows = (top * (_SIDE - 1 - down) + bottom * down + _SIDE // 2) // (_SIDE - 1)
    return Image.fromarray(np.repeat(rows[:, None, :], _SIDE, axis=1).astype(np.uint8), "RGB")


def _texture(name: str, colour: tuple[int, int, int], shift: int) -> Image.Image:
    """Make dark diagonal stripes or light dots over a colour."""
    image = Image.new("RGB", (_SIDE, _SIDE), colour)
    draw = ImageDraw.Draw(image)
    if name == "striped":
        dark = tuple(2 * c // 5 for c in colour)
        for start in range(shift - _SIDE - 2 * _STRIPE, _SIDE, 2 * _STRIPE):
            corners = [(start, 0), (start + _STRIPE, 0), (start + _STRIPE + _SIDE, _SIDE), (start + _SIDE, _SIDE)]
            draw.polygon(corners, fill=dark)
    elif name == "dotted":
        light = tuple((c + 3 * 255) // 4 for c in colour)
        for row, y in enumerate(range(shift - _DOT_SPACING, _SIDE + _DOT_SPACING, _DOT_SPACING // 2)):
            for x in range(shift + row % 2 * (_DOT_SPACING // 2), _SIDE + _DOT_SPACING, _DOT_SPACING):
                draw.ellipse((x - _DOT_RADIUS, y - _DOT_RADIUS, x + _DOT_RADIUS, y + _DOT_RADIUS), fill=light)
    else:
        raise ValueError(f"Unknown texture {name!r}.")
    return image


def drawn_things(scene: Scene) -> tuple[Thing, ...]:
    """List every thing to draw; equal things are repeated by their count."""
    return scene.things * scene.count if scene.relation is None else scene.things


def _jitter(colour: tuple[int, int, int], rng: np.random.Generator) -> tuple[int, int, int]:
    shift = rng.integers(-_COLOUR_JITTER, _COLOUR_JITTER + 1, size=3)
    red, green, blue = (int(np.clip(c + s, 0, 255)) for c, s in zip(colour, shift, strict=True))
    return red, green, blue


def _layout(scene: Scene, rng: np.random.Generator) -> list[Place]:
    """Place the things without overlap."""
    ranges = [_DEFAULT_RADIUS if thing.size is None else SIZES[thing.size] for thing in drawn_things(scene)]
    if scene.relation in ARRANGEMENTS:
        return _line(ranges, rng, down=scene.relation == "in a column")
    while True:
        radii = [float(rng.uniform(*limits)) for limits in ranges]
        for _ in range(_ATTEMPTS):
            places = [tuple(rng.uniform(radius + _MARGIN, RESOLUTION - radius - _MARGIN, size=2)) for radius in radii]
            if _apart(places, radii) and _relation_holds(scene.relation, places, radii):
                return [(float(x), float(y), r) for (x, y), r in zip(places, radii, strict=True)]


def _line(ranges: Sequence[tuple[float, float]], rng: np.random.Generator, *, down: bool) -> list[Place]:
    """Place things one after another along a line, with random gaps and a small random offset from the line."""
    radii = [float(rng.uniform(*limits)) for limits in ranges]
    gaps = RESOLUTION - 2 * sum(radii) - _MARGIN * (len(radii) + 1)
    cuts = np.sort(rng.random(len(radii)))
    middle = float(rng.uniform(16, RESOLUTION - 16))
    places = []
    for number, radius in enumerate(radii):
        before = 2 * sum(radii[:number]) + radius + _MARGIN * (number + 1)
        along = before + gaps * float(cuts[number])
        across = float(np.clip(middle + rng.uniform(-4, 4), radius + _MARGIN, RESOLUTION - radius - _MARGIN))
        places.append((across, along, radius) if down else (along, across, radius))
    return places


def _apart(places: Sequence[tuple[float, ...]], radii: Sequence[float]) -> bool:
    for i in range(len(places)):
        for j in range(i):
            gap = math.dist(places[i], places[j]) - radii[i] - radii[j]
            if gap < _MARGIN:
                return False
    return True


def _relation_holds(relation: str | None, places: Sequence[tuple[float, ...]], radii: Sequence[float]) -> bool:
    """Check that two things are apart along the axis of the relation and close across it."""
    if relation is None:
        return True
    (x0, y0), (x1, y1) = places
    along, across = (x1 - x0, y1 - y0) if relation in ("left of", "right of") else (y1 - y0, x1 - x0)
    if relation in ("right of", "below"):
        along = -along
    return along > sum(radii) + _MARGIN and abs(across) < 0.6 * along


def _outline(shape: str, tilt: float) -> list[tuple[float, float]]:
    """Compute the corner points of a shape in the unit disc, rotated by ``tilt`` radians."""
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
        raise ValueError(f"Unknown shape {shape!r}.")
    cosine, sine = math.cos(tilt), math.sin(tilt)
    return [(cosine * x - sine * y, sine * x + cosine * y) for x, y in points]


def _star_points(radii: list[float], start: float) -> list[tuple[float, float]]:
    step = 2 * math.pi / len(radii)
    return [(r * math.cos(start + i * step), r * math.sin(start + i * step)) for i, r in enumerate(radii)]
