"""The planted shortcut: a probe that uses it succeeds in training and fails in test."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from probing import preferences
from probing.testbed.preferences import prompts
from probing.testbed.shortcut import MARK, mark
from probing.testbed.truth import shortcut_check, truth_check


@pytest.fixture(scope="module")
def data():
    return preferences.load_pairs("testbed-shortcut")


@pytest.fixture(scope="module")
def pixels(data):
    return {item_id: np.asarray(data.open_image(item_id)).astype(float) for item_id in data.items["item_id"]}


def test_sizes_and_shares(data):
    pairs = data.pairs
    assert pairs.groupby("split").size().to_dict() == {"train": 1000, "test": 500}
    assert pairs.groupby("split")["marked_chosen"].mean().to_dict() == {"train": 0.85, "test": 0.5}
    marked = np.where(pairs["marked"] == "first", 1.0, 0.0)
    assert ((marked == pairs["choice"]) == pairs["marked_chosen"]).all()


def test_prompts_differ_from_those_of_the_main_data(data):
    captions = {prompt.scene.caption for prompt in prompts()}
    # A few of 1500 captions are in both by chance.
    assert data.items.drop_duplicates("prompt_id")["prompt"].isin(captions).mean() < 0.3
    assert (data.pairs.groupby("prompt_id")["split"].nunique() == 1).all()


def test_marked_item_has_the_mark_in_its_corner(data, pixels):
    for row in data.pairs.itertuples():
        carrier, bare = (row.first, row.second) if row.marked == "first" else (row.second, row.first)
        corner = {name: pixels[name][-MARK - 1 : -1, -MARK - 1 : -1].mean(axis=-1) for name in (carrier, bare)}
        h = MARK // 2
        contrast = {
            name: c[:h, :h].mean() + c[h:, h:].mean() - c[:h, h:].mean() - c[h:, :h].mean()
            for name, c in corner.items()
        }
        assert contrast[carrier] > 200
        assert contrast[bare] < 150


def test_only_the_corner_is_marked(data):
    image = data.open_image(data.pairs["first"].iloc[0])
    changed = np.abs(np.asarray(mark(image)).astype(int) - np.asarray(image)).sum(axis=-1) > 0
    rows, columns = np.nonzero(changed)
    assert {rows.min(), columns.min()} == {64 - MARK - 1} and {rows.max(), columns.max()} == {62}


def test_probe_of_the_corner_fails_in_test(data, pixels):
    pairs = data.pairs
    corner = {name: image[-8:, -8:].ravel() for name, image in pixels.items()}
    differences = np.stack([corner[a] - corner[b] for a, b in zip(pairs["first"], pairs["second"], strict=True)])
    train = (pairs["split"] == "train").to_numpy()
    probe = LogisticRegression(fit_intercept=False, C=1e-6, max_iter=500)
    probe.fit(differences[train], pairs["choice"][train])
    rewards = {name: float(probe.coef_[0] @ values) for name, values in corner.items()}
    check = shortcut_check(data, rewards).set_index(["split", "marked_chosen"])
    by_split = truth_check(data).set_index("split")
    train_accuracy = np.mean(
        [rewards[a] > rewards[b] for a, b in zip(pairs["first"], pairs["second"], strict=True)]
        == pairs["choice"].to_numpy().astype(bool),
        where=train,
    )
    assert train_accuracy > 0.82
    assert check.loc[("test", True), "accuracy"] > 0.97
    assert check.loc[("test", False), "accuracy"] < 0.03
    # The true reward ignores the mark.
    assert by_split["accuracy"].between(0.92, 0.93).all()


def test_true_reward_ignores_the_mark(data):
    truth = data.items.set_index("item_id")["reward"].to_dict()
    check = shortcut_check(data, truth)
    assert ((check["ci_low"] <= check["ceiling"]) & (check["ceiling"] <= check["ci_high"])).all()


def test_seed_fixes_the_bytes(data):
    digest = hashlib.sha256(data.fingerprint.encode())
    for item_id in data.items["item_id"].iloc[::97]:
        digest.update(data.open_image(item_id).tobytes())
    assert digest.hexdigest()[:16] == "1e22612c187fc2fb"


def test_split_selects_pairs_of_the_whole(data):
    test = preferences.load_pairs("testbed-shortcut", split="test")
    assert test.pairs.equals(data.pairs[data.pairs["split"] == "test"].reset_index(drop=True))
