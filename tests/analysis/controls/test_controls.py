"""One page of controls: each found by its role, chosen on training pairs, and said as its intervals allow."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from probing.analysis.controls import COLUMNS, SAID, _say, controls
from probing.analysis.shortcuts import image_stat_features, source_features
from probing.errors import UserError
from probing.preferences import DrawnImages, PreferenceData
from probing.preferences.audit import IMAGE_STATS, item_image_stats
from probing.statistics import holm, paired_difference
from tests.fakes.planted_store import PlantedStore, planted_pairs


@pytest.fixture(scope="module")
def pairs():
    """Chosen items come from the better painter three times in four."""
    pairs = planted_pairs(test=400)
    better = np.random.default_rng(0).random(len(pairs)) < 0.75
    first = (pairs["choice"] == 1) == better
    return pairs.assign(
        source_model_first=np.where(first, "good", "bad"), source_model_second=np.where(first, "bad", "good")
    )


@pytest.fixture(scope="module")
def image_stats(pairs):
    items = pairs[["first", "second"]].to_numpy().ravel()
    rng = np.random.default_rng(1)
    return pd.DataFrame({"item_id": items, "log_area": 10.0, "log_shape": 0.0, "brightness": rng.random(len(items))})


def store(pairs, strength, **changed):
    return PlantedStore(
        pairs,
        lambda s, *_: (strength, strength) if s == "image" else (strength / 3, 0.0),
        num_blocks=3,
        streams=("image", "text"),
        **changed,
    )


@pytest.fixture(scope="module")
def page(pairs, image_stats):
    stores = [
        store(pairs, 0.0, seed=5, random_init=True),
        store(pairs, 1.5),
        store(pairs, 0.5, seed=6, prompts="foreign"),
        store(pairs, 1.5, seed=7, prompts="empty"),
    ]
    return measure_controls(stores, pairs, image_stats=image_stats)


def test_every_control_is_on_the_page_in_order(page):
    assert tuple(page.columns) == COLUMNS
    # All pictures are of one size, so size alone can tell nothing and is no row.
    assert page["control"].tolist() == [name for name in SAID if name != "size"]
    assert set(page["store"].isna()) == {True}
    kinds = page.set_index("control")["kind"]
    assert kinds["trained"] == "trained" and kinds["text stream"] == "part" and kinds["image stats"] == "shortcut"


def test_planted_strengths_are_told_apart_and_equals_are_not(page):
    row = page.set_index("control")
    for control in ("random-init", "foreign prompt", "latents", "image stats", "shuffled", "text stream"):
        assert row.loc[control, "difference_low"] > 0, control
        assert "the trained backbone is above it" in row.loc[control, "statement"]
    for control in ("random-init", "latents", "image stats", "shuffled"):
        assert row.loc[control, "ci_low"] < 0.53 and row.loc[control, "value"] == pytest.approx(0.5, abs=0.08)
    assert abs(row.loc["empty prompt", "difference"]) < 0.05
    assert "the trained backbone's best cell is one of these" in row.loc["image stream", "statement"]
    assert row.loc["source model", "value"] == pytest.approx(0.75, abs=0.06)
    assert "above chance" in row.loc["source model", "statement"]
    assert row.loc["trained", "statement"].endswith(f"({row.loc['trained', 'place']}).")


def test_differences_are_paired_and_corrected(page):
    others = page[page["control"] != "trained"]
    np.testing.assert_allclose(
        others["difference_p_value_holm"], holm(others["difference_p_value"].to_numpy(dtype=float))
    )
    trained = page["value"].iloc[0]
    np.testing.assert_allclose(others["difference"], trained - others["value"])
    assert page.loc[0, ["difference", "difference_low", "difference_p_value_holm"]].isna().all()


def test_a_shortcut_by_hand(pairs, page):
    """With one channel a name, the probe can only prefer one name to the other."""
    test = pairs[pairs["split"] == "test"]
    right = ((test["source_model_first"] == "good") == (test["choice"] == 1)).to_numpy(dtype=float)
    row = page.set_index("control").loc["source model"]
    assert row["value"] == pytest.approx(right.mean())
    trained = page["value"].iloc[0]
    expected = paired_difference(np.full(len(right), trained), right, test["prompt_id"].to_numpy())
    assert row["difference"] == pytest.approx(expected.estimate)


def test_what_is_said_heeds_the_correction(page):
    """An interval away from zero counts after Holm's correction only."""
    row = page[page["control"] == "random-init"].iloc[0].to_dict()
    row |= {"difference": 0.02, "difference_low": 0.001, "difference_high": 0.04, "difference_p_value_holm": 0.11}
    assert _say(row, "").endswith("[+0.1, +4.0], but not after Holm's correction (p = 0.11).")
    assert "Holm" not in _say({**row, "difference_p_value_holm": 0.04}, "")
    assert "Holm" not in _say({**row, "difference_low": -0.01}, "")


def test_a_source_that_both_sides_share_is_no_shortcut(pairs):
    shared = pairs.assign(source_model_second=pairs["source_model_first"])
    page = measure_controls([store(pairs, 1.0)], shared, ControlSettings(shuffles=0), sites=Sites(streams=("image",)))
    assert "source model" not in set(page["control"])


def test_what_is_not_given_is_left_out(pairs):
    bare = pairs.drop(columns=["source_model_first", "source_model_second"])
    alone = measure_controls([store(pairs, 1.0)], bare, ControlSettings(shuffles=0), sites=Sites(streams=("image",)))
    assert alone["control"].tolist() == ["trained", "latents"]


def test_roles_are_read_from_stores_and_refused_where_they_clash(pairs):
    with pytest.raises(UserError, match="None of the stores is of a trained backbone"):
        measure_controls([store(pairs, 0.0, random_init=True)], pairs)
    with pytest.raises(UserError, match="Two stores are trained"):
        measure_controls([store(pairs, 1.0)] * 2, pairs)
    with pytest.raises(UserError, match="change one thing at a time"):
        measure_controls([store(pairs, 1.0), store(pairs, 0.0, random_init=True, prompts="empty")], pairs)
    with pytest.raises(UserError, match="resolution is 64 and 128"):
        measure_controls([store(pairs, 1.0), store(pairs, 1.0, prompts="empty", resolution=128)], pairs)


def test_features_of_shortcuts(pairs, image_stats):
    ids = PlantedStore(pairs, lambda *_: (0.0, 0.0)).item_ids
    found = source_features(ids, pairs)
    assert found.shape == (len(ids), 2) and (found.sum(axis=1) == 1).all()
    one = pairs.iloc[0]
    assert found[list(ids).index(one["first"])].tolist() == [one["source_model_first"] == n for n in ("bad", "good")]
    assert image_stat_features(ids, image_stats, ["log_area"]) is None
    with pytest.raises(UserError, match="has no image statistics"):
        image_stat_features(ids, image_stats.iloc[1:], ["brightness"])
    half = pairs.assign(source_model_first=None, source_model_second="one")
    assert source_features(ids, half) is None


def test_looks_are_those_of_the_pictures():
    """Known pictures: all white, all red, and columns that alternate."""
    striped = np.zeros((4, 8, 3), dtype=np.uint8)
    striped[:, ::2] = 255
    pictures = {
        "white": Image.new("RGB", (8, 4), "white"),
        "red": Image.new("RGB", (4, 4), (255, 0, 0)),
        "striped": Image.fromarray(striped),
    }
    items = pd.DataFrame(
        {
            "item_id": ["a", "b", "c", "d"],
            "prompt_id": "p",
            "prompt": "words",
            "image": ["white", "red", "striped", "white"],
        }
    )
    pairs = pd.DataFrame(
        {
            "pair_id": ["1", "2"],
            "prompt_id": "p",
            "first": ["a", "c"],
            "second": ["b", "d"],
            "choice": 1.0,
            "split": "train",
            "facet": "all",
        }
    )
    data = PreferenceData("image stats", items, pairs, DrawnImages(lambda name: pictures[name]))
    found = item_image_stats(data, progress=False).set_index("item_id")
    assert tuple(found.columns) == IMAGE_STATS
    assert found.loc["a"].tolist() == found.loc["d"].tolist()
    expected = {
        "a": [np.log(32), np.log(2), 1, 0, 0, 0],
        "b": [np.log(16), 0, 0.299, 0, 1, 0],
        "c": [np.log(32), np.log(2), 0.5, 0.5, 0, np.sqrt(0.5)],
    }
    for item, numbers in expected.items():
        np.testing.assert_allclose(found.loc[item], numbers, atol=1e-6)
