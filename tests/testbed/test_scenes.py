"""Scenes: captions match the drawing, and drawing is reproducible."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from probing.testbed.degradations import KINDS, degrade
from probing.testbed.render import draw, drawn_things, render
from probing.testbed.scenes import (
    ARRANGEMENTS,
    ATTRIBUTES,
    BACKGROUNDS,
    COLOURS,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    Thing,
    attributes_of,
    canonical,
    contradict,
    parse,
    places_of,
    sample_scene,
    vocabulary,
)

seeds = st.integers(0, 2**32)


def blobs(image, scene: Scene) -> list[tuple[float, float, int]]:
    """Find blobs of plain things from pixels and colours alone: centre (x, y) and area."""
    pixels = np.asarray(image).astype(float)
    colours = np.array([COLOURS[thing.colour] for thing in scene.things], dtype=float)
    to_thing = np.abs(pixels[:, :, None] - colours).sum(-1).min(-1)
    labels, count = ndimage.label(to_thing < np.abs(pixels - pixels[:, :1]).sum(-1))
    blobs = []
    for blob in range(1, count + 1):
        area = int((labels == blob).sum())
        if area >= 15:
            y, x = ndimage.center_of_mass(labels == blob)
            blobs.append((float(x), float(y), area))
    return blobs


def plain(scene: Scene) -> Scene:
    """Remove textures: light dots can have nearly the colour of the background."""
    return replace(scene, things=tuple(replace(thing, texture="plain") for thing in scene.things))


@given(seed=seeds)
def test_drawing_matches_the_caption(seed):
    rng = np.random.default_rng(seed)
    scene = plain(sample_scene(rng))
    image, places = draw(scene, rng)
    pixels = np.asarray(image).astype(int)
    found = blobs(image, scene)
    assert len(found) == len(drawn_things(scene)) == len(places), scene.caption
    for thing, (x, y, radius) in zip(drawn_things(scene), places, strict=True):
        assert min((bx - x) ** 2 + (by - y) ** 2 for bx, by, _ in found) < (0.4 * radius) ** 2
        assert np.abs(pixels[int(y), int(x)] - COLOURS[thing.colour]).max() <= 10
    top, *_, bottom = [BACKGROUNDS[part] for part in scene.background.split(" to ")] * 2
    assert np.abs(pixels[0, 0] - top).max() <= 12
    assert np.abs(pixels[-1, -1] - bottom).max() <= 12
    if scene.relation is not None:
        axis = 0 if scene.relation in ("left of", "right of", "in a row") else 1
        along = [place[axis] for place in places]
        assert along == sorted(along, reverse=scene.relation in ("right of", "below"))
    expected = places_of(scene)
    assert len(expected) == len(scene.things)
    for place, (x, y, _) in zip(expected, places, strict=False):
        xs, ys, _ = zip(*places, strict=True)
        holds = {
            "anywhere": scene.relation is None,
            "left": x == min(xs),
            "right": x == max(xs),
            "top": y == min(ys),
            "bottom": y == max(ys),
            "middle": x not in (min(xs), max(xs)) or y not in (min(ys), max(ys)),
        }
        assert holds[place], scene.caption


@given(seed=seeds)
def test_textures_are_visible(seed):
    rng = np.random.default_rng(seed)
    spread = {}
    for texture in TEXTURES:
        image, [(x, y, radius)] = draw(Scene((Thing("square", "blue", "large", texture),), "white"), rng)
        inside = np.asarray(image)[int(y - radius / 2) : int(y + radius / 2), int(x - radius / 2) : int(x + radius / 2)]
        spread[texture] = inside.astype(float).mean(axis=-1)
    assert spread["plain"].std() < 1
    assert spread["striped"].std() > 10 and spread["dotted"].std() > 10
    assert spread["striped"].mean() < spread["plain"].mean() < spread["dotted"].mean()


@pytest.mark.parametrize("shape", SHAPES)
def test_large_is_larger_than_small(shape):
    areas = {}
    for size in SIZES:
        scene = Scene((Thing(shape, "red", size),), "white")
        areas[size] = [blobs(render(scene, np.random.default_rng(s)), scene)[0][2] for s in range(20)]
    assert max(areas["small"]) < min(areas["large"])


@given(seed=seeds)
def test_contradiction_changes_one_attribute(seed):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng)
    for attribute in attributes_of(scene):
        other = contradict(scene, attribute, rng)
        assert canonical(other) != canonical(scene)
        assert attributes_of(other) == attributes_of(scene)
        assert (other.background != scene.background) == (attribute == "background")
        assert (" to " in other.background) == (" to " in scene.background)
        assert (other.count != scene.count) == (attribute == "count")
        if attribute == "relation":
            assert Counter(other.things) == Counter(scene.things)
            continue
        assert other.relation == scene.relation
        changed = [
            key
            for old, new in zip(scene.things, other.things, strict=True)
            for key in ("shape", "colour", "size", "texture")
            if getattr(old, key) != getattr(new, key)
        ]
        assert changed == ([attribute] if attribute in ("shape", "colour", "size", "texture") else [])


def test_contradictions_keep_the_distribution_of_scenes():
    """So an image alone does not show whether its scene contradicts a caption."""
    true, wrong = Counter(), Counter()
    rng = np.random.default_rng(0)
    count = 20_000
    for _ in range(count):
        scene = sample_scene(rng)
        attribute = attributes_of(scene)[int(rng.integers(len(attributes_of(scene))))]
        true.update(traits(scene))
        wrong.update(traits(contradict(scene, attribute, rng)))
    for trait in true | wrong:
        # The draws are dependent, so the difference has at most the variance of two independent counts.
        assert abs(true[trait] - wrong[trait]) < 4.5 * np.sqrt(true[trait] + wrong[trait]), trait


def traits(scene: Scene) -> list:
    scene = canonical(scene)
    things = [
        (number, key, getattr(thing, key))
        for number, thing in enumerate(scene.things)
        for key in ("shape", "colour", "size", "texture")
    ]
    alike = [("alike", len({getattr(thing, key) for thing in scene.things}), key) for key in ("shape", "colour")]
    return [scene.background, scene.count, scene.relation, len(scene.things), *things, *alike]


@given(seed=seeds)
def test_captions_are_parsed_back(seed):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng)
    for other in (scene, canonical(scene), *(contradict(scene, a, rng) for a in attributes_of(scene))):
        assert parse(other.caption) == other


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "a red circle",
        "a teapot on a white background",
        "four red circles on a white background",
        "two red circle on a white background",
        "a red circles on a white background",
        "a red small circle on a white background",
        "a plain red circle on a white background",
        "a red circle on a white to blue background",
        "a red circle on a white background, please",
        "a red circle near a blue star on a white background",
        "a red circle and a blue star in a row on a pink background",
    ],
)
def test_invalid_captions_are_refused(caption):
    with pytest.raises(ValueError, match="is not the caption of a scene"):
        parse(caption)


def test_canonical_scenes_go_left_to_right_and_top_to_bottom():
    star, cross = Thing("star", "red", "small"), Thing("cross", "blue", "large")
    assert canonical(Scene((star, cross), "white", relation="right of")) == Scene(
        (cross, star), "white", relation="left of"
    )
    assert canonical(Scene((star, cross), "white", relation="below")) == Scene((cross, star), "white", relation="above")
    for relation in ("left of", "above"):
        scene = Scene((star, cross), "white", relation=relation)
        assert canonical(scene) == scene


def test_absent_attributes_cannot_be_contradicted():
    scene = Scene((Thing("star", "red", "small"),), "white")
    with pytest.raises(ValueError, match="has no 'relation'"):
        contradict(scene, "relation", np.random.default_rng(0))
    with pytest.raises(ValueError, match="has no 'taste'"):
        contradict(scene, "taste", np.random.default_rng(0))


@given(seed=seeds)
def test_captions_use_the_vocabulary(seed):
    assert set(sample_scene(np.random.default_rng(seed)).caption.split()) <= set(vocabulary())


@pytest.mark.parametrize(
    "arguments",
    [
        ((), "white"),
        ((Thing("star", "red", "small"),) * 2, "white"),
        ((Thing("star", "red", "small"),), "white", 4),
        ((Thing("star", "red"),), "white", 1, "in a row"),
        ((Thing("star", "red"), Thing("star", "blue")), "white", 1, "in a row"),
    ],
)
def test_impossible_scenes_are_refused(arguments):
    with pytest.raises(ValueError):
        Scene(*arguments)


def test_seed_fixes_the_bytes():
    rng = np.random.default_rng(0)
    digest = hashlib.sha256()
    for number in range(100):
        scene = sample_scene(rng)
        digest.update(scene.caption.encode())
        digest.update(degrade(render(scene, rng), KINDS[number % 4], number / 99, rng).tobytes())
    assert digest.hexdigest()[:16] == "28ac4edf4db15387"


@pytest.mark.parametrize("kind", KINDS)
def test_more_strength_does_more_damage(kind):
    def error(strength):
        total = 0.0
        for seed in range(30):
            rng = np.random.default_rng(seed)
            image = render(sample_scene(rng), rng)
            degraded = np.asarray(degrade(image, kind, strength, rng)).astype(float)
            total += np.abs(degraded - np.asarray(image)).mean()
        return total

    errors = [error(strength) for strength in (0.0, 0.25, 0.5, 1.0)]
    assert errors[0] == 0
    assert errors == sorted(errors) and errors[1] > 0


def test_broken_patches_are_near_things_on_any_background():
    def moved(background):
        """Measure the share of broken pixels on the thing or beside it."""
        shares = []
        for seed in range(20):
            rng = np.random.default_rng(seed)
            image, [(x, y, radius)] = draw(Scene((Thing("square", "red", "large"),), background), rng)
            difference = np.abs(np.asarray(degrade(image, "broken", 1.0, rng)).astype(float) - np.asarray(image)).sum(
                -1
            )
            down, right = np.mgrid[:64, :64]
            near = np.maximum(np.abs(right - x), np.abs(down - y)) < radius + 9
            shares.append(difference[near].sum() / difference.sum())
        return np.mean(shares)

    assert moved("white") > 0.95
    assert moved("white to black") > 0.95


def test_bad_degradations_are_refused():
    image = render(Scene((Thing("star", "red", "small"),), "white"), np.random.default_rng(0))
    with pytest.raises(ValueError, match="known are blur"):
        degrade(image, "rust", 0.5, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        degrade(image, "blur", 1.5, np.random.default_rng(0))


def test_scenes_cover_every_attribute():
    scenes = [sample_scene(np.random.default_rng(seed)) for seed in range(200)]
    assert {a for scene in scenes for a in attributes_of(scene)} == set(ATTRIBUTES)
    assert {scene.relation for scene in scenes} == {None, *RELATIONS, *ARRANGEMENTS}
