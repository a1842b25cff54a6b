"""The testbed's pairs: the truth is what is said of it."""

from __future__ import annotations

import numpy as np
import pytest

from probing import preferences
from probing.testbed.preferences import TEMPERATURE


@pytest.fixture(scope="module")
def data():
    return preferences.load("testbed")


def test_sizes_and_facets(data):
    counts = data.pairs.groupby(["split", "facet"]).size()
    assert counts.to_dict() == {
        ("train", "alignment"): 2000, ("train", "quality"): 2000,
        ("test", "alignment"): 1000, ("test", "quality"): 1000,
    }  # fmt: skip
    assert data.items["prompt"].nunique() == 3000


def test_no_caption_is_on_both_sides(data):
    split_of = data.pairs.groupby("prompt_id")["split"].nunique()
    assert (split_of == 1).all()
    assert data.items.groupby("prompt")["prompt_id"].nunique().max() == 1


def test_annotators_choose_by_bradley_terry(data):
    pairs = data.pairs
    difference = pairs["reward_first"] - pairs["reward_second"]
    np.testing.assert_allclose(pairs["probability"], 1 / (1 + np.exp(-difference / TEMPERATURE)))
    # The choices are draws from those probabilities: their standardised sum is a normal deviate.
    p = pairs["probability"]
    deviate = (pairs["choice"] - p).sum() / np.sqrt((p * (1 - p)).sum())
    assert abs(deviate) < 4


def test_the_true_reward_reaches_the_ceiling_and_no_more(data):
    for _, pairs in data.pairs.groupby(["split", "facet"]):
        right = np.sign(pairs["reward_first"] - pairs["reward_second"]) == 2 * pairs["choice"] - 1
        ceiling = np.maximum(pairs["probability"], 1 - pairs["probability"]).mean()
        error = np.sqrt((pairs["probability"] * (1 - pairs["probability"])).mean() / len(pairs))
        assert abs(right.mean() - ceiling) < 4 * error
        assert 0.75 < ceiling < 0.97


def test_place_tells_nothing(data):
    pairs = data.pairs
    better_first = pairs["reward_first"] > pairs["reward_second"]
    for share in (better_first.mean(), pairs["choice"].mean()):
        assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(len(pairs))


def test_pictures_are_the_same_whenever_they_are_opened(data):
    again = preferences.load("testbed")
    for item_id in data.items["item_id"].sample(20, random_state=0):
        assert data.open_image(item_id).tobytes() == again.open_image(item_id).tobytes()
    assert data.fingerprint == again.fingerprint


def test_the_pictures_of_a_prompt_differ(data):
    for _, items in list(data.items.groupby("prompt_id"))[:20]:
        assert len({data.open_image(i).tobytes() for i in items["item_id"]}) == 4


def test_a_split_is_a_part_of_the_whole(data):
    test = preferences.load("testbed", split="test")
    assert set(test.pairs["split"]) == {"test"}
    assert set(test.items["item_id"]) == set(test.pairs["first"]) | set(test.pairs["second"])
    whole = data.pairs[data.pairs["split"] == "test"].reset_index(drop=True)
    assert test.pairs.equals(whole)
