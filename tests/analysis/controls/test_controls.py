"""Controls: recognised by their stores, selected on training pairs, stated within their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from probing.analysis.controls import ControlSettings, measure_controls
from probing.analysis.controls.experiment import COLUMNS, LABELS, _statement
from probing.analysis.controls.shortcuts import column_features, image_stat_features
from probing.analysis.engine import Sites
from probing.errors import UserError
from probing.preferences import DrawnImages, PreferenceData
from probing.preferences.audit import IMAGE_STATS, item_image_stats
from probing.statistics import holm, paired_difference
from tests.fakes.planted_store import PlantedStore, planted_pairs


@pytest.fixture(scope="module")
def pairs():
    """Chosen items come from the better source model three times in four."""
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
def table(pairs, image_stats):
    stores = [
        store(pairs, 0.0, seed=5, random_init=True),
        store(pairs, 1.5),
        store(pairs, 0.5, seed=6, prompts="foreign"),
        store(pairs, 1.5, seed=7, prompts="empty"),
    ]
    return measure_controls(stores, pairs, image_stats=image_stats)


def test_every_control_is_a_row_in_order(table):
    assert tuple(table.columns) == COLUMNS
    # All pictures have one size, so size is no row.
    assert table["control"].tolist() == [name for name in LABELS if name != "size"]
    assert set(table["store"].isna()) == {True}
    kinds = table.set_index("control")["kind"]
    assert kinds["trained"] == "trained" and kinds["text stream"] == "part" and kinds["image stats"] == "shortcut"


def test_planted_differences_are_distinguished(table):
    row = table.set_index("control")
    for control in ("random-init", "foreign prompt", "latents", "image stats", "shuffled", "text stream"):
        assert row.loc[control, "difference_low"] > 0, control
        assert "the trained backbone is above it" in row.loc[control, "statement"]
        assert row.loc[control, "difference_verdict"] == "above"
    for control in ("random-init", "latents", "image stats", "shuffled"):
        assert row.loc[control, "ci_low"] < 0.53 and row.loc[control, "value"] == pytest.approx(0.5, abs=0.08)
    assert abs(row.loc["empty prompt", "difference"]) < 0.05
    assert "the trained backbone's best cell is one of these" in row.loc["image stream", "statement"]
    assert row.loc["source model", "value"] == pytest.approx(0.75, abs=0.06)
    assert "above chance" in row.loc["source model", "statement"]
    assert row.loc["trained", "statement"].endswith(f"({row.loc['trained', 'site']}).")


def test_shuffled_choices_have_a_range_and_no_verdict(table):
    row = table.set_index("control").loc["shuffled"]
    assert row["draws"] == 20 and row["draw_low"] < 0.5 < row["draw_high"] and pd.isna(row["verdict"])
    assert "chance" not in row["statement"] and "mean of 20 draws from" in row["statement"]


def test_draws_of_random_weights_are_one_row(pairs):
    draws = [store(pairs, 0.0, seed=seed, random_init=True) for seed in (5, 6, 7)]
    for seed, draw in enumerate(draws):
        draw.attributes["seed"] = seed
    table = measure_controls([store(pairs, 1.0), *draws], pairs, ControlSettings(shuffles=0))
    row = table.set_index("control").loc["random-init"]
    assert row["draws"] == 3 and row["draw_low"] <= row["value"] <= row["draw_high"]
    assert "not distinguished from chance" in row["statement"] and "mean of 3 draws from" in row["statement"]


def test_a_property_of_the_pairs_is_a_shortcut(pairs):
    """Always the picture with the larger number: right where the choice says so."""
    rng = np.random.default_rng(4)
    numbers = pairs.assign(strength_first=rng.random(len(pairs)), strength_second=rng.random(len(pairs)))
    table = measure_controls([store(pairs, 1.0)], numbers, ControlSettings(shuffles=0, shortcuts=("strength",)))
    row = table.set_index("control").loc["strength"]
    test = numbers[numbers["split"] == "test"]
    larger = (test["strength_first"] > test["strength_second"]) == (test["choice"] == 1)
    assert row["kind"] == "shortcut" and row["value"] in (larger.mean(), 1 - larger.mean())
    assert "strength > 0" not in set(table["control"])
    # Whether it is above 0 is a shortcut of its own: always the picture that has any.
    either = numbers.assign(strength_second=0.0, strength_first=np.where(numbers["choice"] == 1, 0.2, 0.9))
    row = measure_controls([store(pairs, 1.0)], either, ControlSettings(shuffles=0, shortcuts=("strength",)))
    always = row.set_index("control").loc["strength > 0", "value"]
    assert always in ((test["choice"] == 1).mean(), (test["choice"] == 0).mean())
    with pytest.raises(UserError, match="no columns beauty_first"):
        measure_controls([store(pairs, 1.0)], numbers, ControlSettings(shuffles=0, shortcuts=("beauty",)))


def test_differences_are_paired_and_corrected(table):
    controls = table[(table["control"] != "trained") & (table["control"] != "image stream")]
    np.testing.assert_allclose(
        controls["difference_p_value_holm"], holm(controls["difference_p_value"].to_numpy(dtype=float))
    )
    trained = table["value"].iloc[0]
    np.testing.assert_allclose(controls["difference"], trained - controls["value"])
    itself = table[table["control"] == "image stream"].iloc[0]
    assert np.isnan(itself["difference"]) and pd.isna(itself["difference_family"])
    assert table.loc[0, ["difference", "difference_low", "difference_p_value_holm"]].isna().all()


def test_a_shortcut_matches_a_calculation_by_hand(pairs, table):
    """With one channel a source model, the probe can only prefer one of two."""
    test = pairs[pairs["split"] == "test"]
    right = ((test["source_model_first"] == "good") == (test["choice"] == 1)).to_numpy(dtype=float)
    row = table.set_index("control").loc["source model"]
    assert row["value"] == pytest.approx(right.mean())
    trained = table["value"].iloc[0]
    expected = paired_difference(np.full(len(right), trained), right, test["prompt_id"].to_numpy())
    assert row["difference"] == pytest.approx(expected.estimate)


def test_statements_follow_the_verdicts(table):
    """An interval away from zero is no verdict."""
    row = table[table["control"] == "random-init"].iloc[0].to_dict()
    row |= {"difference": 0.02, "difference_low": 0.001, "difference_high": 0.04, "difference_p_value_holm": 0.3}
    open_, above = ({**row, "difference_verdict": name} for name in ("not distinguished", "above"))
    open_statement = "the trained backbone is not distinguished from it, +2.0 points [+0.1, +4.0], p = 0.3 after Holm."
    assert _statement(open_).endswith(open_statement)
    assert "is above it" in _statement(above)
    assert ": below chance," in _statement({**row, "verdict": "below"})
    assert "too few prompts for a verdict" in _statement({**row, "verdict": "too little data"})


def test_a_shared_source_model_is_no_shortcut(pairs):
    shared = pairs.assign(source_model_second=pairs["source_model_first"])
    table = measure_controls([store(pairs, 1.0)], shared, ControlSettings(shuffles=0), sites=Sites(streams=("image",)))
    assert "source model" not in set(table["control"])


def test_controls_without_inputs_are_left_out(pairs):
    without = pairs.drop(columns=["source_model_first", "source_model_second"])
    alone = measure_controls([store(pairs, 1.0)], without, ControlSettings(shuffles=0), sites=Sites(streams=("image",)))
    assert alone["control"].tolist() == ["trained", "latents"]


def test_clashing_stores_are_refused(pairs):
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
    features = column_features(ids, pairs, "source_model")
    assert features.shape == (len(ids), 2) and (features.sum(axis=1) == 1).all()
    pair = pairs.iloc[0]
    assert features[list(ids).index(pair["first"])].tolist() == [
        pair["source_model_first"] == n for n in ("bad", "good")
    ]
    assert image_stat_features(ids, image_stats, ["log_area"]) is None
    with pytest.raises(UserError, match="has no image statistics"):
        image_stat_features(ids, image_stats.iloc[1:], ["brightness"])
    partial = pairs.assign(source_model_first=None, source_model_second="one")
    assert column_features(ids, partial, "source_model") is None


def test_image_stats_describe_the_pictures():
    """Three pictures: white, red, and alternating columns."""
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
    stats = item_image_stats(data, progress=False).set_index("item_id")
    assert tuple(stats.columns) == IMAGE_STATS
    assert stats.loc["a"].tolist() == stats.loc["d"].tolist()
    expected = {
        "a": [np.log(32), np.log(2), 1, 0, 0, 0],
        "b": [np.log(16), 0, 0.299, 0, 1, 0],
        "c": [np.log(32), np.log(2), 0.5, 0.5, 0, np.sqrt(0.5)],
    }
    for item, numbers in expected.items():
        np.testing.assert_allclose(stats.loc[item], numbers, atol=1e-6)
