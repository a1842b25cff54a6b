"""The rules that compare a reading with a caption, without a network."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from probing.testbed.caption_check import DetectedThing, Reading, check_caption
from probing.testbed.render import draw, drawn_things
from probing.testbed.scenes import Scene, Thing, attributes_of, canonical, contradict, parse, sample_scene

seeds = st.integers(0, 2**32)


def read_exactly(scene: Scene, rng: np.random.Generator) -> Reading:
    """Draw a scene and return its exact reading."""
    _, places = draw(scene, rng)
    things = [
        DetectedThing(thing.shape, thing.colour, thing.size or "small", thing.texture, x, y)
        for thing, (x, y, _) in zip(drawn_things(scene), places, strict=True)
    ]
    return Reading(tuple(sorted(things, key=lambda thing: thing.x)), scene.background)


@given(seed=seeds)
def test_image_matches_its_caption_and_the_canonical_one(seed):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng)
    reading = read_exactly(scene, rng)
    assert set(check_caption(reading, scene)) == set(attributes_of(scene))
    assert all(check_caption(reading, scene).values()), scene.caption
    assert all(check_caption(reading, canonical(scene)).values())


@given(seed=seeds)
def test_only_the_contradicted_attribute_is_wrong(seed):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng)
    reading = read_exactly(scene, rng)
    for attribute in attributes_of(scene):
        wrong = [name for name, right in check_caption(reading, contradict(scene, attribute, rng)).items() if not right]
        assert wrong == [attribute], scene.caption


def test_swapped_things_have_a_wrong_relation_only():
    scene = parse("a small red circle left of a large blue star on a white background")
    reading = read_exactly(scene, np.random.default_rng(0))
    turned = parse("a small red circle right of a large blue star on a white background")
    assert [name for name, right in check_caption(reading, turned).items() if not right] == ["relation"]


def test_missing_and_additional_things():
    rng = np.random.default_rng(0)
    pair = Scene((Thing("circle", "red", "small"), Thing("star", "blue", "small")), "white", relation="left of")
    reading = read_exactly(pair, rng)
    missing = check_caption(replace(reading, things=reading.things[:1]), pair)
    assert Counter(missing.values()) == {False: 5, True: 1} and missing["background"]
    additional = check_caption(
        replace(reading, things=(*reading.things, replace(reading.things[0], shape="cross", y=60.0))), pair
    )
    assert [name for name, right in additional.items() if not right] == ["relation"]
    equal = Scene((Thing("circle", "red", "small"),), "white", count=2)
    reading = read_exactly(equal, rng)
    one_off = replace(reading, things=(*reading.things, replace(reading.things[0], colour="blue")))
    assert [name for name, right in check_caption(one_off, equal).items() if not right] == ["colour", "count"]
    assert not any(check_caption(replace(reading, things=(), background="pink"), equal).values())


def test_things_in_a_row_are_in_order_and_level():
    scene = parse("a red circle a blue star and a green cross in a row on a white background")
    things = [
        DetectedThing(t.shape, t.colour, "small", "plain", x, y)
        for t, x, y in zip(scene.things, (10, 30, 50), (30, 34, 28), strict=True)
    ]
    assert all(check_caption(Reading(tuple(things), "white"), scene).values())
    swapped = [things[0], replace(things[1], x=50), replace(things[2], x=30)]
    assert not check_caption(Reading(tuple(swapped), "white"), scene)["relation"]
    steep = [replace(thing, y=y) for thing, y in zip(things, (5, 30, 60), strict=True)]
    assert not check_caption(Reading(tuple(steep), "white"), scene)["relation"]
