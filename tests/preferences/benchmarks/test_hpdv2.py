"""HPDv2: pairs of train.json, ranked lists of test.json."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest

from probing import preferences
from probing.errors import UserError
from tests.preferences.published import prompt, write


@pytest.fixture
def root(tmp_path):
    return write("hpdv2", tmp_path / "hpdv2")


def test_train_pairs_are_the_published_ones_in_the_published_order(root):
    records = json.loads((root / "train.json").read_text())
    pairs = preferences.load_pairs("hpdv2", root=root, split="train").pairs
    assert pairs["pair_id"].tolist() == [f"train{i}" for i in range(len(records))]
    assert pairs["choice"].tolist() == [float(record["human_preference"][0]) for record in records]
    for record, (_, pair) in zip(records, pairs.iterrows(), strict=True):
        assert [pair["first"].split("/")[-1], pair["second"].split("/")[-1]] == record["file_path"]


def test_test_lists_become_all_their_pairs(root):
    records = json.loads((root / "test.json").read_text())
    pairs = preferences.load_pairs("hpdv2", root=root, split="test").pairs
    assert len(pairs) == 36 * len(records)
    for number, record in enumerate(records):
        part = pairs[pairs["list_id"] == f"test{number}"]
        rows = {
            tuple(sorted((row["first"].split("/")[-1], row["second"].split("/")[-1]))): row
            for _, row in part.iterrows()
        }
        for (a, rank_a), (b, rank_b) in combinations(zip(record["image_path"], record["rank"], strict=True), 2):
            row = rows[tuple(sorted((a, b)))]
            choice = row["choice"] if row["first"].endswith(a) else 1 - row["choice"]
            assert choice == (0.5 if rank_a == rank_b else float(rank_a < rank_b))
            votes = [
                np.sign(one["rank"][record["image_path"].index(b)] - one["rank"][record["image_path"].index(a)])
                for one in record["raw_annotations"]
            ]
            share = row["share_first"] if row["first"].endswith(a) else row["share_second"]
            assert share == pytest.approx(np.mean([(1 + vote) / 2 for vote in votes]))
        assert (part["annotators"] == 3).all()
        assert (part["choice"] == 0.5).sum() == 1


def test_pictures_are_found_where_the_archives_unpack(root):
    data = preferences.load_pairs("hpdv2", root=root)
    assert len(data.missing_images()) == 0
    # A folder with the pictures directly in it.
    for name in ("train", "test"):
        for file in (root / name).iterdir():
            file.rename(root / f"{name}-{file.name}")
    moved = preferences.load_pairs("hpdv2", root=root)
    assert len(moved.missing_images()) == len(moved.items)


def change(root, file, row, **fields):
    path = root / file
    records = json.loads(path.read_text())
    records[row].update(fields)
    path.write_text(json.dumps(records))


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("train.json", {"human_preference": [1, 1]}, r"'train2' .*human_preference \[1, 1\], expected \[1, 0\] or"),
        ("train.json", {"human_preference": [1]}, r"'train2' .*human_preference \[1\], expected \[1, 0\] or"),
        ("train.json", {"human_preference": "first"}, r"'train2' .*human_preference 'first', expected"),
        ("train.json", {"file_path": ["a.png"]}, r"'train2' .*file_path \['a.png'\], expected two paths"),
        ("train.json", {"prompt": ""}, r"'train2' .*prompt '', expected a text"),
        ("test.json", {"rank": [1, 2]}, r"'test2' has 9 pictures and 2 of rank"),
        ("test.json", {"rank": [-1] * 9}, r"'test2' .*rank .*expected a list of ranks"),
        ("test.json", {"rank": [1.5] * 9}, r"'test2' .*rank .*expected a list of ranks"),
        ("test.json", {"rank": []}, r"'test2' .*rank \[\], expected a list of ranks"),
        ("test.json", {"image_path": [], "rank": []}, r"'test2' .*image_path \[\], expected a list of paths"),
        ("test.json", {"image_path": ["a.png"], "rank": [1]}, r"'test2' has 1 pictures, expected at least 2"),
        ("test.json", {"image_path": ["a.png"] * 9}, r"'test2' has a picture twice"),
        ("test.json", {"raw_annotations": [{"user_hash": "x"}]}, r"'test2' .*raw_annotations"),
    ],
)
def test_bad_records_are_one_sentence_with_their_number(root, file, fields, message):
    change(root, file, 2, **fields)
    with pytest.raises(UserError, match=message) as error:
        preferences.load_pairs("hpdv2", root=root)
    assert "\n" not in str(error.value)


def test_stringified_lists_are_read(root):
    expected = preferences.load_pairs("hpdv2", root=root)
    for file in ("train.json", "test.json"):
        records = json.loads((root / file).read_text())
        for record in records:
            for field in ("human_preference", "file_path", "image_path", "rank"):
                if field in record:
                    record[field] = json.dumps(record[field])
        (root / file).write_text(json.dumps(records))
    read = preferences.load_pairs("hpdv2", root=root)
    assert read.fingerprint == expected.fingerprint


def test_annotations_may_be_absent(root):
    records = json.loads((root / "test.json").read_text())
    for record in records:
        del record["raw_annotations"]
    (root / "test.json").write_text(json.dumps(records))
    pairs = preferences.load_pairs("hpdv2", root=root, split="test").pairs
    assert len(pairs) == 36 * len(records) and "annotators" not in pairs
    assert prompt(1000) in set(preferences.load_pairs("hpdv2", root=root, split="test").items["prompt"].astype(str))
