"""Scenes: captions say what is drawn, and drawing is the same everywhere."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from probing.testbed.degradations import KINDS, degrade
from probing.testbed.scenes import (
    ATTRIBUTES,
    BACKGROUNDS,
    COLOURS,
    RELATIONS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    attributes_of,
    contradict,
    render,
    sample_scene,
    vocabulary,
)

seeds = st.integers(0, 2**32)


def blobs(scene: Scene, image) -> list[tuple[str, float, float, int]]:
    """Find what is drawn from the pixels alone: nearest colour name, centre (x, y) and area of each blob."""
    pixels = np.asarray(image).astype(float)
    palette = {**COLOURS, "": BACKGROUNDS[scene.background]}
    distance = np.stack([np.abs(pixels - value).sum(-1) for value in palette.values()])
    nearest = distance.argmin(0)
    nearest[distance.min(0) > 60] = list(palette).index("")
    found = []
    for index, name in enumerate(palette):
        labels, count = ndimage.label(nearest == index)
        for blob in range(1, count + 1) if name else []:
            area = int((labels == blob).sum())
            if area >= 15:
                y, x = ndimage.center_of_mass(labels == blob)
                found.append((name, float(x), float(y), area))
    return found


@given(seed=seeds)
def test_what_the_caption_says_is_what_is_drawn(seed):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng)
    found = blobs(scene, render(scene, rng))
    expected = [t.colour for t in scene.things] * scene.count
    assert sorted(name for name, *_ in found) == sorted(expected), scene.caption
    corner = np.asarray(render(scene, rng))[0, 0].astype(int)
    assert np.abs(corner - BACKGROUNDS[scene.background]).max() <= 10
    if scene.relation is not None and scene.things[0].colour != scene.things[1].colour:
        (_, x0, y0, _), (_, x1, y1, _) = (next(b for b in found if b[0] == t.colour) for t in scene.things)
        holds = {"left of": x0 < x1, "right of": x0 > x1, "above": y0 < y1, "below": y0 > y1}
        assert holds[scene.relation], scene.caption


@pytest.mark.parametrize("shape", SHAPES)
def test_large_is_larger_than_small(shape):
    areas = {}
    for size in SIZES:
        scene = Scene((Thing(shape, "red", size),), "white")
        areas[size] = [blobs(scene, render(scene, np.random.default_rng(s)))[0][3] for s in range(20)]
    assert max(areas["small"]) < min(areas["large"])


@given(seed=seeds)
def test_a_contradiction_changes_one_attribute(seed):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng)
    for attribute in attributes_of(scene):
        other = contradict(scene, attribute, rng)
        assert other != scene
        assert (other.background != scene.background) == (attribute == "background")
        assert (other.count != scene.count) == (attribute == "count")
        assert (other.relation != scene.relation) == (attribute == "relation")
        changed = [
            key for old, new in zip(scene.things, other.things, strict=True)
            for key in ("shape", "colour", "size") if getattr(old, key) != getattr(new, key)
        ]  # fmt: skip
        assert changed == ([attribute] if attribute in ("shape", "colour", "size") else [])


def test_what_a_scene_does_not_say_cannot_be_contradicted():
    scene = Scene((Thing("star", "red", "small"),), "white")
    with pytest.raises(ValueError, match="says nothing of 'relation'"):
        contradict(scene, "relation", np.random.default_rng(0))
    with pytest.raises(ValueError, match="says nothing of 'taste'"):
        contradict(scene, "taste", np.random.default_rng(0))


@given(seed=seeds)
def test_captions_use_the_vocabulary(seed):
    assert set(sample_scene(np.random.default_rng(seed)).caption.split()) <= set(vocabulary())


@pytest.mark.parametrize(
    "arguments",
    [((), "white"), ((Thing("star", "red", "small"),) * 2, "white"), ((Thing("star", "red", "small"),), "white", 4)],
)
def test_impossible_scenes_are_refused(arguments):
    with pytest.raises(ValueError):
        Scene(*arguments)


def test_the_same_seed_draws_the_same_bytes_for_ever():
    rng = np.random.default_rng(0)
    digest = hashlib.sha256()
    for kind in KINDS:
        scene = sample_scene(rng)
        digest.update(scene.caption.encode())
        digest.update(degrade(render(scene, rng), kind, 0.5, rng).tobytes())
    assert digest.hexdigest()[:16] == "af173a309aaa7dbf"


@pytest.mark.parametrize("kind", KINDS)
def test_more_strength_does_more_damage(kind):
    def error(strength):
        total = 0.0
        for seed in range(30):
            rng = np.random.default_rng(seed)
            image = render(sample_scene(rng), rng)
            spoilt = np.asarray(degrade(image, kind, strength, rng)).astype(float)
            total += np.abs(spoilt - np.asarray(image)).mean()
        return total

    errors = [error(strength) for strength in (0.0, 0.25, 0.5, 1.0)]
    assert errors[0] == 0
    assert errors == sorted(errors) and errors[1] > 0


def test_bad_degradations_are_refused():
    image = render(Scene((Thing("star", "red", "small"),), "white"), np.random.default_rng(0))
    with pytest.raises(ValueError, match="known are blur"):
        degrade(image, "rust", 0.5, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        degrade(image, "blur", 1.5, np.random.default_rng(0))


def test_every_attribute_is_said_by_some_scene():
    scenes = [sample_scene(np.random.default_rng(seed)) for seed in range(200)]
    assert {a for scene in scenes for a in attributes_of(scene)} == set(ATTRIBUTES)
    assert {scene.relation for scene in scenes} == {None, *RELATIONS}
