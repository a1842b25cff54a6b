"""ImageReward: the repository's test lists, and ImageRewardDB."""

from __future__ import annotations

import json
from itertools import combinations

import pandas as pd
import pytest

from probing import preferences
from probing.errors import UserError
from tests.preferences.published import write

LISTS, PROMPTS, PAIRS, TIED = 466, 463, 7230, 831
"""Counts of the published test.json."""


def published_structure() -> list[dict]:
    """Lists of 4 to 9 pictures, ranks of 1 to 5, that have the published numbers of lists, prompts, pairs and ties.

    With five ranks, a list of six has at least one tie; 329 of them have two.
    """
    sizes = [4] * 10 + [5] * 14 + [7] * 10 + [8] * 10 + [9] * 10 + [6] * 412
    assert len(sizes) == LISTS and sum(n * (n - 1) // 2 for n in sizes) == PAIRS
    records, twice = [], 329
    for number, size in enumerate(sizes):
        if size == 6:
            ranking = [1, 1, 2, 2, 3, 4] if twice > 0 else [1, 2, 3, 4, 5, 5]
            twice -= 1
        else:
            ranking = [1 + position % 5 for position in range(size)]
        # The last three lists are of the first three prompts again.
        words = f"prompt {number % PROMPTS}"
        names = [f"{number}-{position}.png" for position in range(size)]
        records.append({"id": f"{number:06d}-0066", "prompt": words, "generations": names, "ranking": ranking})
    assert sum(a == b for r in records for a, b in combinations(r["ranking"], 2)) == TIED
    return records


def test_the_structure_gives_the_published_counts(tmp_path):
    (tmp_path / "test.json").write_text(json.dumps(published_structure()))
    data = preferences.load_pairs("imagereward", root=tmp_path)
    assert data.pairs["list_id"].nunique() == LISTS
    assert data.pairs["prompt_id"].nunique() == PROMPTS
    assert len(data.pairs) == PAIRS
    assert (data.pairs["choice"] == 0.5).sum() == TIED
    assert (data.pairs["choice"] != 0.5).sum() == 6399
    assert set(data.pairs["split"]) == {"test"}


@pytest.fixture
def root(tmp_path):
    return write("imagereward", tmp_path / "imagereward")


def test_lists_become_their_pairs_and_the_lower_rank_wins(root):
    records = json.loads((root / "test.json").read_text())
    data = preferences.load_pairs("imagereward", root=root)
    for record in records:
        part = data.pairs[data.pairs["list_id"] == record["id"]]
        rank = dict(zip(record["generations"], record["ranking"], strict=True))
        read = {
            frozenset((a.split("/")[-1], b.split("/")[-1])) for a, b in zip(part["first"], part["second"], strict=True)
        }
        assert read == {frozenset(two) for two in combinations(record["generations"], 2)}
        for _, row in part.iterrows():
            a, b = (rank[row[side].split("/")[-1]] for side in ("first", "second"))
            assert row["choice"] == (0.5 if a == b else float(a < b))
    assert len(data.missing_images()) == 0


def test_sides_are_randomized(tmp_path):
    """Published lists may be ordered by rank; then the first would always win."""
    records = [
        {"id": str(i), "prompt": f"p{i}", "generations": [f"{i}a", f"{i}b"], "ranking": [1, 2]} for i in range(2000)
    ]
    (tmp_path / "test.json").write_text(json.dumps(records))
    assert abs(preferences.load_pairs("imagereward", root=tmp_path).pairs["choice"].mean() - 0.5) < 4 * 0.5 / 2000**0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ranking": [1, 2, 3, 4, 5, 10]}, r"'000002-0001' .*ranking .*expected a list of ranks from 1 to 9"),
        ({"ranking": [0, 1, 2, 3, 4, 5]}, r"'000002-0001' .*ranking .*expected a list of ranks"),
        ({"ranking": [1, 2, 3]}, r"'000002-0001' has 6 pictures and 3 of ranking"),
        ({"ranking": "best"}, r"'000002-0001' .*ranking 'best', expected"),
        ({"ranking": []}, r"'000002-0001' .*ranking \[\], expected"),
        ({"generations": []}, r"'000002-0001' .*generations \[\], expected a list of paths"),
        ({"generations": ["a.png"], "ranking": [1]}, r"'000002-0001' has 1 pictures"),
        ({"id": "000001-0001"}, r"id '000001-0001' twice"),
        ({"id": None}, r"id None, expected a text"),
        ({"prompt": 3}, r"'000002-0001' .*prompt 3, expected a text"),
    ],
)
def test_bad_lists_are_one_sentence_with_their_id(root, fields, message):
    path = root / "test.json"
    records = json.loads(path.read_text())
    records[2].update(fields)
    path.write_text(json.dumps(records))
    with pytest.raises(UserError, match=message) as error:
        preferences.load_pairs("imagereward", root=root)
    assert "\n" not in str(error.value)


@pytest.fixture
def db(tmp_path):
    return write("imagereward-db", tmp_path / "db")


def test_the_database_has_three_facets(db):
    data = preferences.load_pairs("imagereward-db", root=db)
    assert set(data.pairs["facet"]) == {"overall", "alignment", "fidelity"}
    rows = pd.read_parquet(db / "metadata-test.parquet").set_index("image_path")
    test = data.pairs[data.pairs["split"] == "test"]
    image = data.items.set_index("item_id")["image"]
    for facet, column, better in (
        ("overall", "rank", "lower"),
        ("alignment", "image_text_alignment_rating", "higher"),
        ("fidelity", "fidelity_rating", "higher"),
    ):
        part = test[test["facet"] == facet]
        for _, row in part.iterrows():
            a, b = (rows.loc[image[row[side]], column] for side in ("first", "second"))
            wins = a < b if better == "lower" else a > b
            assert row["choice"] == (0.5 if a == b else float(wins))
            assert row["overall_rating_first"] == rows.loc[image[row["first"]], "overall_rating"]
    # The ids of the benchmark.
    assert set(data.pairs["prompt_id"]) == {
        i
        for split in ("train", "validation", "test")
        for i in pd.read_parquet(db / f"metadata-{split}.parquet")["prompt_id"]
    }


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("rank", 0, "has the rank 0, expected 1 to 9"),
        ("fidelity_rating", 8, "has the fidelity_rating 8, expected 1 to 7"),
        ("image_text_alignment_rating", None, "has the image_text_alignment_rating nan, expected 1 to 7"),
    ],
)
def test_bad_rows_are_named_by_their_picture(db, column, value, message):
    path = db / "metadata-test.parquet"
    rows = pd.read_parquet(path)
    rows.loc[3, column] = value
    rows.to_parquet(path)
    with pytest.raises(UserError, match=f"{rows.loc[3, 'image_path']} of .*{message}"):
        preferences.load_pairs("imagereward-db", root=db, split="test")


def test_a_database_without_its_columns_or_file(db):
    path = db / "metadata-test.parquet"
    pd.read_parquet(path).drop(columns="rank").to_parquet(path)
    with pytest.raises(UserError, match="lacks the columns rank"):
        preferences.load_pairs("imagereward-db", root=db, split="test")
    pd.read_parquet(db / "metadata-train.parquet").head(0).to_parquet(path)
    with pytest.raises(UserError, match="contains no pictures"):
        preferences.load_pairs("imagereward-db", root=db, split="test")
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match="no Parquet table"):
        preferences.load_pairs("imagereward-db", root=db, split="test")
    path.unlink()
    with pytest.raises(UserError, match=r"metadata-test\.parquet is missing"):
        preferences.load_pairs("imagereward-db", root=db, split="test")
