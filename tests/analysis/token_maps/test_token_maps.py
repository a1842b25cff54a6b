"""Token maps average to the reward, and pairs are selected by their margin."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from probing.analysis.engine import LOGISTIC, Recipe
from probing.analysis.reward_curve import measure_curve
from probing.analysis.token_maps.maps import COLUMNS, TokenCell, choose_pairs, token_cells, token_maps
from probing.errors import UserError
from probing.probes import LogisticProbe
from tests.fakes.fake_store import FakeStore, make_pairs

GRID = (3, 4)


@pytest.fixture(scope="module")
def pairs():
    return make_pairs()


@pytest.fixture(scope="module")
def store(pairs):
    return FakeStore(pairs)


def tokens_of(store):
    """Tokens whose mean is the store's: token 5 carries everything."""

    def read(items, sigma, block):
        features = store.read("image", "mean", sigma, block).astype(np.float64)
        rows = [list(store.item_ids).index(item) for item in items]
        tokens = np.zeros((len(items), 12, features.shape[1]))
        tokens[:, 5] = 12 * features[rows]
        return tokens

    return read


def open_picture(item):
    return Image.new("RGB", (200, 200), (10, 20, 30))


@pytest.fixture(scope="module")
def table(store, pairs):
    prompts = pd.Series({prompt: f"words of {prompt}" for prompt in pairs["prompt_id"].unique()})
    cell = TokenCell("quality", 0.005, 3, LOGISTIC)
    return token_maps(store, pairs, cell, prompts, tokens_of(store), open_picture, GRID, count=3)


def test_the_mean_of_token_scores_is_the_reward(store, pairs, table):
    assert tuple(table.columns) == COLUMNS
    features = store.read("image", "mean", 0.005, 3)
    train = pairs[(pairs["split"] == "train") & (pairs["facet"] == "quality")]
    row_of = {item: row for row, item in enumerate(store.item_ids)}
    first, second = (features[[row_of[i] for i in train[side]]].astype(float) for side in ("first", "second"))
    probe = LogisticProbe().fit(first - second, train["choice"].to_numpy(), train["prompt_id"].to_numpy())
    for item in table.to_dict("records"):
        scores = np.array([float(score) for score in item["scores"].split()])
        reward = probe.decision_function(features[[row_of[item["item_id"]]]].astype(float)).item()
        assert scores.mean() == pytest.approx(reward, rel=1e-4, abs=1e-6) == pytest.approx(item["reward"], rel=1e-4)
        assert item["store_reward"] == pytest.approx(item["reward"])
        # Planted: one token carries everything.
        assert np.flatnonzero(scores).tolist() == [5]


def test_margins_are_towards_the_chosen_item(table):
    for _, pair in table.groupby(["selection", "rank"]):
        rewards = pair.set_index("side")["reward"]
        sign = 1 if pair["choice"].iloc[0] == 1 else -1
        assert pair["margin"].iloc[0] == pytest.approx(sign * (rewards["first"] - rewards["second"]))
        assert pair["chosen"].sum() == 1 and pair.loc[pair["chosen"], "side"].item() == (
            "first" if sign == 1 else "second"
        )


def test_selected_pairs_are_ordered_and_distinct(table, pairs):
    assert len(table) == 3 * 3 * 2
    margins = {name: rows.drop_duplicates("pair_id")["margin"].to_numpy() for name, rows in table.groupby("selection")}
    assert (np.diff(margins["highest"]) <= 0).all() and (margins["highest"] > 0).all()
    assert (np.diff(margins["wrong"]) >= 0).all() and (margins["wrong"] < 0).all()
    assert np.abs(margins["lowest"]).max() < min(margins["highest"].min(), -margins["wrong"].max())
    assert table.groupby("pair_id").size().eq(2).all()
    test = set(pairs.loc[pairs["split"] == "test", "pair_id"])
    assert set(table["pair_id"]) <= test


def test_few_pairs_are_selected_once():
    selected = choose_pairs(np.array([2.0, -1.0, 0.1]), 4)
    assert {name: rows.tolist() for name, rows in selected.items()} == {"highest": [0, 2], "lowest": [], "wrong": [1]}
    selected = choose_pairs(np.array([3.0, 2.0, 1.0, -0.5]), 1)
    assert [selected[name].tolist() for name in ("highest", "lowest", "wrong")] == [[0], [2], [3]]


def test_pictures_are_small_and_unchanged(table):
    picture = Image.open(io.BytesIO(base64.b64decode(table["picture"].iloc[0])))
    assert picture.size == (128, 128) and picture.getpixel((5, 5)) == (10, 20, 30)


def test_the_cell_is_the_best_by_cross_validation(store, pairs):
    curve = measure_curve(store, pairs, shuffles=0).table
    rows = curve[(curve["control"] == "trained") & (curve["stream"] == "image")]
    for cell in token_cells(curve):
        cells = rows[rows["facet"] == cell.facet]
        best = cells.loc[cells["cv_accuracy"].idxmax()]
        assert (cell.sigma, cell.block) == (best["sigma"], best["block"]) and cell.recipe == LOGISTIC
    (cell,) = token_cells(curve, facets=["quality"], sigma=0.6, block=1)
    assert (cell.sigma, cell.block) == (0.6, 1)
    with pytest.raises(UserError, match=r"mean of image tokens for facet quality, sigma 0.5; measure it"):
        token_cells(curve, facets=["quality"], sigma=0.5)


def test_tokens_of_another_model_are_refused(store, pairs):
    prompts = pd.Series("words", index=pairs["prompt_id"].unique())
    cell = TokenCell("quality", 0.005, 3, LOGISTIC)
    read = tokens_of(store)
    with pytest.raises(UserError, match="differ from the store's: rewards by up to"):
        token_maps(store, pairs, cell, prompts, lambda *a: 1.5 * read(*a), open_picture, GRID)


def test_nonlinear_probes_and_no_pairs_are_refused(store, pairs):
    prompts = pd.Series("words", index=pairs["prompt_id"].unique())
    with pytest.raises(UserError, match="expected 1 or more"):
        token_maps(
            store,
            pairs,
            TokenCell("quality", 0.005, 3, LOGISTIC),
            prompts,
            tokens_of(store),
            open_picture,
            GRID,
            count=0,
        )
    with pytest.raises(UserError, match="linear probes alone, and mlp is none"):
        token_maps(
            store, pairs, TokenCell("quality", 0.005, 3, Recipe("mlp")), prompts, tokens_of(store), open_picture, GRID
        )
