"""The two tables: what they refuse, what a selection keeps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from probing.errors import UserError
from probing.preferences import DrawnImages, PreferenceData


def make(prompts=6, **changed):
    items = pd.DataFrame(
        [(f"i{p}{s}", f"p{p}", f"prompt {p}") for p in range(prompts) for s in "ab"],
        columns=["item_id", "prompt_id", "prompt"],
    ).assign(image="red")
    pairs = pd.DataFrame(
        [
            (f"pair{p}", f"p{p}", f"i{p}a", f"i{p}b", float(p % 2), "test" if p % 3 == 0 else "train", "all")
            for p in range(prompts)
        ],
        columns=["pair_id", "prompt_id", "first", "second", "choice", "split", "facet"],
    )
    for column, value in changed.items():
        if isinstance(value, str):
            pairs[column] = pairs[column].astype(object)
        pairs.loc[1, column] = value
    return PreferenceData(
        name="d", items=items, pairs=pairs, images=DrawnImages(lambda name: Image.new("RGB", (1, 1), name))
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"first": "nobody"}, "'pair1' has an unknown item as first"),
        ({"second": "i0a"}, "'pair1' has as second an item of another prompt"),
        ({"second": "i1a"}, "'pair1' compares an item with itself"),
        ({"choice": 1.5}, r"'pair1' has a choice outside \[0, 1\]"),
        ({"choice": np.nan}, "'pair1' has no choice"),
        ({"split": "dev"}, "'pair1' has an unknown split"),
        ({"pair_id": "pair0"}, "'pair0' is repeated"),
        ({"choice": "first"}, "choices of d are object, not numbers"),
    ],
)
def test_inconsistent_tables_name_the_record(changed, message):
    with pytest.raises(UserError, match=message):
        make(**changed)


def test_columns_and_rows_are_needed():
    data = make()
    with pytest.raises(UserError, match="lack the columns facet"):
        PreferenceData("d", data.items, data.pairs.drop(columns="facet"), data.images)
    with pytest.raises(UserError, match="There are no pairs"):
        PreferenceData("d", data.items, data.pairs.head(0), data.images)


def test_a_prompt_has_one_text():
    data = make()
    items = data.items.assign(prompt=data.items["prompt"].where(data.items.index != 3, "another"))
    with pytest.raises(UserError, match="'p1' has more than one text"):
        PreferenceData("d", items, data.pairs, data.images)


@given(limit=st.integers(2, 80), prompts=st.integers(2, 40))
def test_a_limit_keeps_whole_prompt_groups(limit, prompts):
    data = make(prompts)
    few = data.select(limit=limit)
    assert len(few.items) <= max(limit, 2)
    assert len(few.items) == min(2 * prompts, limit - limit % 2)
    assert set(few.pairs["prompt_id"]) == set(few.items["prompt_id"])
    assert few.items.groupby("prompt_id").size().eq(2).all()


def test_a_limit_keeps_each_splits_share():
    few = make(600).select(limit=120)
    assert (few.pairs["split"] == "test").mean() == pytest.approx(1 / 3, abs=0.08)


def test_selections_that_leave_nothing_are_refused():
    with pytest.raises(UserError, match="no pairs of split 'validation'; it has"):
        make().select(split="validation")
    with pytest.raises(UserError, match="No prompt group fits"):
        make().select(limit=1)
    with pytest.raises(UserError, match="at least 1"):
        make().select(limit=0)


def test_the_fingerprint_differs_between_data():
    assert make().fingerprint == make().fingerprint
    assert make().fingerprint != make(choice=0.5).fingerprint
    assert make().fingerprint != make(7).fingerprint
