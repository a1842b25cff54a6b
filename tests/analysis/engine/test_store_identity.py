"""Stores belong together only if the items that they share have the same pictures and prompts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probing.analysis.noise import noise
from probing.analysis.reward_curve import check_comparable
from probing.analysis.scaling import scaling
from probing.analysis.source import different_inputs
from probing.errors import UserError
from probing.features.store import ArraySpec, FeatureStore
from probing.features.store.layout import COLUMNS


def make(path, *, items=("a", "b", "c"), pictures=(1, 2, 3), words="w", **settings):
    array = ArraySpec("features/image/mean", (0,), (2,), "float32")
    table = pd.DataFrame({"item_id": list(items), "prompt_id": [f"p-{i}" for i in items], "prompt": words})
    store = FeatureStore.create(
        path,
        arrays=[array],
        items=table,
        sigmas=[0.1],
        num_blocks=1,
        run_length=8,
        settings={"model": "m", "prompts": "own", "random_init": False, "seed": 0, **settings},
        provenance={},
    )
    columns = {(c.name, 0): np.zeros((len(items), *c.shape), c.dtype) for c in COLUMNS}
    columns["image_digest", 0][:, 0] = pictures
    store.write_run(0, {("features/image/mean", 0): np.ones((len(items), 1, 2), np.float32), **columns})
    return FeatureStore.open(path)


def test_the_same_items_in_another_order_and_fewer_of_them_are_the_same(tmp_path):
    one = make(tmp_path / "one")
    assert different_inputs(one, make(tmp_path / "two", items=("c", "a"), pictures=(3, 1))) is None


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"pictures": (1, 9, 3)}, "the picture of 1 items, such as 'b'"),
        ({"words": "v"}, "the prompt of 3 items, such as 'a'"),
        ({"items": ("x", "y", "z")}, "they share no item"),
    ],
)
def test_what_differs_is_named(tmp_path, changed, difference):
    one, other = make(tmp_path / "one"), make(tmp_path / "other", **changed, seed=1)
    assert different_inputs(one, other) == difference
    pairs = pd.DataFrame()
    with pytest.raises(UserError, match=difference):
        check_comparable(make(tmp_path / "trained", seed=1), other)
    with pytest.raises(UserError, match=f"in more than its noise: {difference}"):
        measure_noise([one, other], pairs)
    with pytest.raises(UserError, match=f"in more than its model: {difference}"):
        measure_scaling([one, other], pairs)


def test_words_are_compared_where_one_rule_gave_them(tmp_path):
    one, other = make(tmp_path / "one"), make(tmp_path / "other", words="other words", prompts="foreign")
    assert different_inputs(one, other) is None
