"""Where a rendered picture is wrong or damaged, against the pictures themselves."""

from __future__ import annotations

import numpy as np
import pytest

from probing.preferences import load_pairs
from probing.testbed.faults import damage_map, misalignment_map
from probing.testbed.render import draw
from probing.testbed.scenes import Scene, Thing

RED, BLUE = Thing("square", "red", "large"), Thing("circle", "blue", "large")
SEED = (1, 2, 3)


def pixels(scene):
    return np.asarray(draw(scene, np.random.default_rng(SEED))[0], dtype=int)


def test_the_thing_that_contradicts_the_caption_is_marked_and_no_other():
    shown = Scene((RED, BLUE), "white", relation="left of")
    wanted = Scene((RED, Thing("circle", "green", "large")), "white", relation="left of")
    marked = misalignment_map(shown, wanted, SEED) > 0
    image = pixels(shown)
    blue = (image[..., 2] > 150) & (image[..., 0] < 100)
    red = (image[..., 0] > 150) & (image[..., 2] < 100)
    assert blue.sum() > 100 and marked[blue].mean() > 0.95 and not marked[red].any()


def test_a_wrong_background_is_everything_but_the_things():
    shown = Scene((RED,), "white")
    marked = misalignment_map(shown, Scene((RED,), "pink"), SEED) > 0
    image = pixels(shown)
    red = (image[..., 0] > 150) & (image[..., 2] < 100)
    assert not marked[red].any() and marked.sum() > 1500 and marked[0].all()


def test_a_wrong_relation_is_all_things_and_a_wrong_count_nowhere_in_particular():
    one, other = (Scene((RED, BLUE), "white", relation=name) for name in ("left of", "right of"))
    image = pixels(one)
    marked = misalignment_map(one, other, SEED) > 0
    assert marked[image.min(axis=2) < 100].mean() > 0.9 and not marked[0].any()
    two, three = (Scene((RED,), "white", count=count) for count in (2, 3))
    assert misalignment_map(two, three, SEED) is None
    changed = Scene((BLUE,), "white", count=2)
    both = misalignment_map(two, changed, SEED) > 0
    assert both[pixels(two).min(axis=2) < 100].mean() > 0.9
    assert misalignment_map(one, one, SEED).max() == 0


@pytest.mark.parametrize("kind", ["blur", "noise", "blocks", "broken"])
def test_damage_is_the_difference_from_the_clean_picture(kind):
    scene = Scene((RED,), "white")
    damage = damage_map(scene, kind, 0.8, SEED)
    assert 0 < damage.max() <= 1
    edge = damage[0]
    assert (edge.max() > 0) == (kind == "noise")


def test_the_testbed_gives_both_kinds_and_none_for_what_nobody_knows():
    data = load_pairs("testbed")
    assert data.heat_map_kinds == ("misalignment", "artifacts")
    assert data.heat_map("p00000-right", "misalignment").max() == 0
    assert data.heat_map("p00000-spoilt-0", "artifacts").max() > 0
    wrong = [data.heat_map(f"p{number:05d}-wrong", "misalignment") for number in range(60)]
    assert any(one is None for one in wrong) and sum(one is not None and one.max() == 1 for one in wrong) > 10
    generated = data.items.loc[~data.items["item_id"].str.contains("right|wrong|spoilt"), "item_id"].iloc[0]
    assert data.heat_map(generated, "artifacts") is None
