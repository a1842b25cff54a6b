"""Stores are comparable only if their shared items have the same pictures and prompts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probing.analysis.engine import StoreIdentity, check_comparable
from probing.analysis.noise import measure_noise
from probing.analysis.scaling import measure_scaling
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


def difference_of(one, other, apart_from=("noise",)):
    return StoreIdentity(one).difference(StoreIdentity(other), apart_from=apart_from)


def test_order_and_number_of_items_may_differ(tmp_path):
    one = make(tmp_path / "one")
    assert difference_of(one, make(tmp_path / "two", items=("c", "a"), pictures=(3, 1))) is None


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"pictures": (1, 9, 3)}, "the picture of 1 items, such as 'b'"),
        ({"words": "v"}, "the prompt of 3 items, such as 'a'"),
        ({"items": ("x", "y", "z")}, "they share no item"),
    ],
)
def test_differences_are_named(tmp_path, changed, difference):
    one, other = make(tmp_path / "one"), make(tmp_path / "other", **changed, seed=1)
    assert difference_of(one, other) == difference
    pairs = pd.DataFrame()
    with pytest.raises(UserError, match=difference):
        check_comparable(make(tmp_path / "trained", seed=1), other, apart_from=("weights",))
    with pytest.raises(UserError, match=f"in more than noise: {difference}"):
        measure_noise([one, other], pairs)
    with pytest.raises(UserError, match=f"in more than model or weights or preparation or noise: {difference}"):
        measure_scaling([one, other], pairs)


def test_texts_are_compared_under_the_same_prompt_rule(tmp_path):
    one, other = make(tmp_path / "one"), make(tmp_path / "other", words="other words", prompts="foreign")
    assert difference_of(one, other, apart_from=("prompts",)) is None
