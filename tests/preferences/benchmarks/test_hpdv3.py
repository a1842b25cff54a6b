"""HPDv3: train.json, all.json and test.json, with the texts that derivatives hold."""

from __future__ import annotations

import json

import numpy as np
import pytest

from probing import preferences
from probing.errors import UserError

HPDV3_TRAIN = [
    {
        "prompt": "a cat",
        "choice_dist": [12, 7],
        "confidence": 0.9999,
        "path1": "a.png",
        "path2": "b.png",
        "model1": "flux",
        "model2": "sd2",
    },
    {
        "prompt": "a dog",
        "choice_dist": None,
        "confidence": None,
        "path1": "b.png",
        "path2": "c.png",
        "model1": "real",
        "model2": "sd2",
    },
    {
        "prompt": "an owl",
        "choice_dist": "[8, 1]",
        "confidence": "0.98",
        "path1": "c.png",
        "path2": "d.png",
        "model1": "real",
        "model2": "sd2",
    },
    {
        "prompt": "an ant",
        "choice_dist": "null",
        "confidence": "null",
        "path1": "c.png",
        "path2": "d.png",
        "model1": "real",
        "model2": "sd2",
    },
]
HPDV3_TEST = [{"prompt": "a fish", "path1": "a.png", "path2": "d.png", "model1": "flux", "model2": "sd2"}]


def test_hpdv3_as_published(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(HPDV3_TRAIN))
    (tmp_path / "test.json").write_text(json.dumps(HPDV3_TEST))
    data = preferences.load_pairs("hpdv3", root=tmp_path)
    pairs = data.pairs
    assert pairs["split"].tolist() == ["train"] * 4 + ["test"]
    np.testing.assert_array_equal(pairs["confidence"], [0.9999, np.nan, 0.98, np.nan, np.nan])
    np.testing.assert_array_equal(pairs["annotators"], [19, np.nan, 9, np.nan, np.nan])
    assert [row[f"source_model_{'first' if row['choice'] else 'second'}"] for _, row in pairs.iterrows()] == [
        "flux",
        "real",
        "real",
        "real",
        "flux",
    ]
    for record, (_, pair) in zip([*HPDV3_TRAIN, *HPDV3_TEST], pairs.iterrows(), strict=True):
        assert (pair["first"] if pair["choice"] == 1 else pair["second"]).endswith(record["path1"])
    alone = preferences.load_pairs("hpdv3", root=tmp_path, split="test")
    assert len(alone.pairs) == 1
    assert set(alone.items["item_id"]) == set(data.items["item_id"][data.items["prompt"] == "a fish"])


def test_hpdv3_with_all_annotations(tmp_path):
    (tmp_path / "all.json").write_text(json.dumps([*HPDV3_TRAIN, {**HPDV3_TRAIN[0], "prompt": "a hen"}]))
    (tmp_path / "test.json").write_text(json.dumps(HPDV3_TEST))
    data = preferences.load_pairs("hpdv3-all", root=tmp_path)
    assert (data.name, data.pairs["split"].tolist()) == ("hpdv3-all", ["train"] * 5 + ["test"])


def test_hpdv3_with_a_prompt_in_both_splits(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(HPDV3_TRAIN))
    (tmp_path / "test.json").write_text(json.dumps([{**HPDV3_TEST[0], "prompt": "A cat"}]))
    with pytest.raises(UserError, match=r"'a cat'; --leaks drop leaves out their pairs"):
        preferences.load_pairs("hpdv3", root=tmp_path)
    kept, dropped = (preferences.load_pairs("hpdv3", root=tmp_path, leaks=leaks) for leaks in ("keep", "drop"))
    assert kept.pairs["split"].tolist() == ["train"] * 4 + ["test"]
    assert dropped.pairs["pair_id"].tolist() == ["train1", "train2", "train3", "test0"]
    assert dropped.settings["dropped_crossing_pairs"] == 1


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{**HPDV3_TRAIN[0], "confidence": "high"}], "'train0' of .* has the confidence 'high', expected a number"),
        (
            [{**HPDV3_TRAIN[0], "choice_dist": "[12"}],
            "'train0' of .* has the choice_dist '\\[12', expected two counts of votes",
        ),
        ([{"prompt": "x", "path1": "a.png"}], "'train0' of .* lacks the field path2; it has prompt, path1"),
    ],
)
def test_bad_hpdv3_records_are_named(tmp_path, records, message):
    (tmp_path / "train.json").write_text(json.dumps(records))
    with pytest.raises(UserError, match=message):
        preferences.load_pairs("hpdv3", root=tmp_path, split="train")


def test_hpdv3_without_its_files(tmp_path):
    with pytest.raises(UserError, match=r"train\.json is missing"):
        preferences.load_pairs("hpdv3", root=tmp_path)
    (tmp_path / "train.json").write_text("[")
    with pytest.raises(UserError, match="ends in the middle"):
        preferences.load_pairs("hpdv3", root=tmp_path, split="train")
    with pytest.raises(UserError, match="has the splits train, test"):
        preferences.load_pairs("hpdv3", root=tmp_path, split="validation")
