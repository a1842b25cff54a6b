"""Planted heat maps are found, shuffled ones and those of random weights are not, and nothing is found in noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from probing.analysis.heat_maps import HeatMapSettings, measure_heat_maps, report_heat_maps
from probing.analysis.heat_maps.experiment import COLUMNS, EXAMPLE_COLUMNS
from probing.analysis.reward_curve import measure_curve
from probing.errors import UserError
from probing.preferences import PreferenceData
from probing.preferences.images import DrawnImages
from tests.fakes.fake_store import FakeStore, make_pairs

GRID = (4, 4)
TOKENS = 16


@pytest.fixture(scope="module")
def pairs():
    return make_pairs()


@pytest.fixture(scope="module")
def store(pairs):
    store = FakeStore(pairs)
    store.attributes |= {"resolution": 16, "resize": "center-crop", "background": "white"}
    return store


@pytest.fixture(scope="module")
def curve(store, pairs):
    return measure_curve(store, pairs, facets=["quality"]).table


def place_of(item):
    return np.random.default_rng(list(item.encode())).integers(TOKENS)


def heat_map(item, kind):
    """One token is at fault; nobody was asked about every fifth item, and every seventh has no fault."""
    number = int(np.random.default_rng([*item.encode(), 1]).integers(35))
    if number % 5 == 0:
        return None
    marked = np.zeros(TOKENS, dtype=np.float32)
    if number % 7:
        marked[place_of(item)] = 0.8
    return marked.reshape(GRID)


@pytest.fixture(scope="module")
def data(pairs):
    ids = pd.unique(pairs[["first", "second"]].to_numpy().ravel())
    prompts = pd.concat([pairs.set_index(side)["prompt_id"] for side in ("first", "second")])
    prompts = prompts[~prompts.index.duplicated()]
    items = pd.DataFrame({"item_id": ids, "prompt_id": prompts[ids].to_numpy(), "image": ids})
    items["prompt"] = "words of " + items["prompt_id"]
    rng = np.random.default_rng(0)
    pictures = {item: Image.fromarray(rng.integers(0, 255, (16, 16, 3)).astype(np.uint8)) for item in ids}
    images = DrawnImages(pictures.__getitem__, "v", kinds=("artifacts",), heat_map=heat_map)
    return PreferenceData(name="fake", items=items, pairs=pairs, images=images)


def towards_rejection(store, pairs, sigma, block):
    """A direction of features that lowers any sensible reward."""
    features = store.read("image", "mean", sigma, block).astype(float)
    row_of = {item: row for row, item in enumerate(store.item_ids)}
    train = pairs[(pairs["split"] == "train") & (pairs["facet"] == "quality")]
    first, second = (features[[row_of[item] for item in train[side]]] for side in ("first", "second"))
    return -((2 * train["choice"].to_numpy()[:, None] - 1) * (first - second)).mean(axis=0)


def reader(pairs, planted):
    """Tokens of noise; those at fault are moved where ``planted`` holds for the store."""

    def read(store, items, sigma, block):
        channels = store.read("image", "mean", sigma, block).shape[1]
        tokens = np.array(
            [np.random.default_rng([*item.encode(), 2]).normal(size=(TOKENS, channels)) for item in items]
        )
        direction = towards_rejection(store, pairs, sigma, block)
        for row, item in enumerate(items):
            if planted(store):
                tokens[row, place_of(item)] += 20 * direction / np.linalg.norm(direction)
        return tokens.astype(np.float32)

    return read


def measure(stores, pairs, data, curve, planted):
    settings = HeatMapSettings(curve=curve, items=60)
    read = reader(pairs, planted)
    return measure_heat_maps(stores, pairs, settings, data=data, grid=GRID, read_tokens=read, facets=["quality"])


def of(table, control, metric="auc"):
    return table[(table["control"] == control) & (table["metric"] == metric)].iloc[0]


def test_a_planted_fault_is_found_and_no_control_finds_it(store, pairs, data, curve):
    random = FakeStore(pairs, random_init=True, seed=1)
    tables = measure([store, random], pairs, data, curve, lambda one: one is store)
    table = tables["heat_maps"]
    assert tuple(table.columns) == COLUMNS and len(table) == 2 * 5
    assert of(table, "trained")["value"] > 0.95 and of(table, "trained", "spearman")["value"] > 0.3
    for control in ("random-init", "shuffled", "edges", "centre"):
        row = of(table, control)
        assert abs(row["value"] - 0.5) < 0.12
        assert row["verdict"] == "above" and row["difference_low"] > 0.2
    assert of(table, "trained")["n_items"] == of(table, "edges")["n_items"] <= 60
    assert "quality on artifacts is above chance by auc" in report_heat_maps(tables)[0]
    examples = tables["heat_map_examples"]
    assert tuple(examples.columns) == EXAMPLE_COLUMNS and examples["auc"].is_monotonic_decreasing
    for row in examples.to_dict("records"):
        truth, scores = (np.array(row[name].split(), dtype=float) for name in ("truth", "scores"))
        assert truth.argmax() == place_of(row["item_id"])
        assert scores.argmin() == place_of(row["item_id"]) or row["auc"] < 1


def test_nothing_is_found_where_nothing_was_planted(store, pairs, data, curve):
    table = measure([store], pairs, data, curve, lambda _: False)["heat_maps"]
    assert set(table["control"]) == {"trained", "shuffled", "edges", "centre"}
    assert (table["verdict"] == "not distinguished").all()
    assert of(table, "trained")["ci_low"] < 0.5 < of(table, "trained")["ci_high"]


def test_data_without_heat_maps_and_pictures_without_faults_get_a_sentence(store, pairs, data, curve):
    bare = PreferenceData("bare", data.items, data.pairs, DrawnImages(data.images.draw, "v"))
    with pytest.raises(UserError, match="bare has no heat maps; rapidata"):
        measure([store], pairs, bare, curve, lambda _: True)
    images = DrawnImages(data.images.draw, "v", kinds=("artifacts",), heat_map=lambda *_: None)
    with pytest.raises(UserError, match="No test picture of none has a heat map"):
        measure([store], pairs, PreferenceData("none", data.items, data.pairs, images), curve, lambda _: True)
    with pytest.raises(UserError, match="--items must be at least 2"):
        HeatMapSettings(curve=curve, items=1)
