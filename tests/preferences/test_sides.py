"""Sides are randomised: the columns of a side move with it, and no others."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from probing import preferences
from probing.errors import UserError
from probing.preferences.comparisons import from_comparisons
from probing.preferences.pairs_file import RESERVED
from tests.preferences.pair_files import write_pairs_file
from tests.preferences.published import write as write_published

ROWS = {"prompt": ["a cat", "an owl", "a dog"], "chosen": ["a.png"] * 3, "rejected": ["b.png", "c.png", "d.png"]}


def load(folder, columns, suffix=".csv"):
    return preferences.load_pairs(write_pairs_file(folder, {**ROWS, **columns}, suffix))


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
@pytest.mark.parametrize(
    "column", [*RESERVED, "image_first", "image_second", "x_first", "x_second", "source_model_first"]
)
def test_reserved_columns_are_refused_and_listed(tmp_path, column, suffix):
    with pytest.raises(
        UserError, match=rf"has the columns {column}, which are reserved; .*first, second, choice, image_"
    ):
        load(tmp_path, {column: ["x", "y", "z"]}, suffix)
    # Neither a partner nor the same column of the two sides makes it a user's column.
    with pytest.raises(UserError, match="which are reserved"):
        load(
            tmp_path,
            {"x_first": ["x"] * 3, "x_second": ["y"] * 3, "x_chosen": ["x"] * 3, "x_rejected": ["y"] * 3},
            suffix,
        )


@pytest.mark.parametrize(("column", "partner"), [("caption_chosen", "caption_rejected"), ("n_rejected", "n_chosen")])
def test_one_sided_columns_are_refused(tmp_path, column, partner):
    with pytest.raises(UserError, match=f"has the column {column} without {partner}; give both"):
        load(tmp_path, {column: ["x", "y", "z"]})


def test_names_similar_to_reserved_ones_are_accepted(tmp_path):
    names = ["image", "item_id", "First", "choices", "first_seen", "chosen_by", "x_first_y", "a b", "é"]
    pairs = load(tmp_path, {name: [f"{name} {n}" for n in range(3)] for name in names}).pairs
    for name in names:
        assert pairs[name].tolist() == [f"{name} {n}" for n in range(3)]


def test_the_two_sides_have_one_type(tmp_path):
    with pytest.raises(UserError, match="numbers in the column 'score_first' and text in 'score_second'"):
        load(tmp_path, {"score_chosen": [1, 2, 3], "score_rejected": ["a", "b", "c"]})
    pairs = load(tmp_path, {"score_chosen": [1, 2, 3], "score_rejected": [None, None, None]}).pairs
    assert pairs["score_first"].isna().sum() + pairs["score_second"].isna().sum() == 3


@pytest.mark.parametrize("column", ["x_first", "image_second", "source_model_first"])
def test_tables_of_readers_have_both_sides_or_neither(column):
    table = pd.DataFrame({"prompt": ["a", "b"], "first": ["x", "x"], "second": ["y", "y"], "choice": [1.0, 0.0]})
    with pytest.raises(UserError, match=f"mine has the column '{column}' without"):
        from_comparisons("mine", table.assign(**{column: "z"}), None, randomize_sides=True)
    twice = pd.concat([table, table[["prompt"]]], axis=1)
    with pytest.raises(UserError, match="mine has the column 'prompt' twice"):
        from_comparisons("mine", twice, None, randomize_sides=True)


def test_hpdv3_with_one_model_column_is_one_sentence(tmp_path):
    root = write_published("hpdv3", tmp_path)
    text = (root / "test.json").read_text().replace('"model1"', '"model_one"')
    (root / "test.json").write_text(text)
    with pytest.raises(UserError, match="'source_model_second' without 'source_model_first'"):
        preferences.load_pairs("hpdv3", root=root, split="test")


CELLS = {
    "text": st.none() | st.sampled_from(["", "u", "v", "w"]),
    "number": st.none() | st.integers(-5, 5),
    "truth": st.booleans(),
}


@st.composite
def records(draw):
    """Pairs of a user, with columns of both sides and columns of the pair."""
    count = draw(st.integers(2, 8))
    kinds = {f"c{n}": draw(st.sampled_from(sorted(CELLS))) for n in range(draw(st.integers(0, 3)))}
    rows = []
    for number in range(count):
        chosen, rejected = draw(st.permutations(["a.png", "b.png", "c.png"]))[:2]
        row = {
            "prompt": f"prompt {draw(st.integers(0, 3))}",
            "chosen": chosen,
            "rejected": rejected,
            "tie": draw(st.booleans()),
        }
        row |= {"pair_id": f"id{number}", "split": "train", "note": f"note {number}"}
        for side in ("chosen", "rejected"):
            row[f"source_model_{side}"] = row[side].upper()
            row |= {f"{column}_{side}": draw(CELLS[kind]) for column, kind in kinds.items()}
        rows.append(row)
    return rows, list(kinds)


def value_or_none(value):
    return None if value is None or value != value or value == "" else value


def check_sides_stay_together(folder, rows, columns, suffix, seed):
    data = preferences.load_pairs(write_pairs_file(folder, rows, suffix), root=folder, seed=seed)
    items = data.items.set_index("item_id")
    assert data.pairs["pair_id"].tolist() == [row["pair_id"] for row in rows]
    for row, pair in zip(rows, data.pairs.to_dict("records"), strict=True):
        image_of_first = items.loc[pair["first"], "image"]
        first, second = ("chosen", "rejected") if image_of_first == row["chosen"] else ("rejected", "chosen")
        assert pair["choice"] == (0.5 if row["tie"] else float(first == "chosen"))
        assert pair["note"] == row["note"]
        for side, given_side in (("first", first), ("second", second)):
            item = items.loc[pair[side]]
            assert item["prompt"] == row["prompt"] and item["image"] == row[given_side]
            assert item["source_model"] == pair[f"source_model_{side}"] == row[given_side].upper()
            for column in columns:
                assert value_or_none(pair[f"{column}_{side}"]) == value_or_none(row[f"{column}_{given_side}"])


@given(records(), st.sampled_from([".csv", ".parquet", ".jsonl"]), st.integers(0, 5))
@settings(max_examples=60)
def test_columns_of_a_side_move_with_it(tmp_path_factory, made, suffix, seed):
    check_sides_stay_together(tmp_path_factory.mktemp("sides"), *made, suffix, seed)


@pytest.mark.slow
@given(records(), st.sampled_from([".csv", ".parquet", ".jsonl"]), st.integers(0, 1000))
@settings(max_examples=2000)
def test_many_tables_keep_their_sides(tmp_path_factory, made, suffix, seed):
    check_sides_stay_together(tmp_path_factory.getbasetemp(), *made, suffix, seed)


def test_each_side_opens_its_picture(tmp_path):
    colours = {"a.png": (255, 0, 0), "b.png": (0, 255, 0), "c.png": (0, 0, 255), "d.png": (9, 9, 9)}
    for name, colour in colours.items():
        Image.new("RGB", (4, 4), colour).save(tmp_path / name)
    data = load(tmp_path, {"colour_chosen": ["255"] * 3, "colour_rejected": ["0", "0", "9"]}, ".parquet")
    for pair in data.pairs.to_dict("records"):
        for side in ("first", "second"):
            assert data.open_image(pair[side]).getpixel((0, 0))[0] == int(pair[f"colour_{side}"])


@pytest.mark.parametrize("name", ["hpdv3", "imagereward", "imagereward-db"])
def test_benchmarks_keep_their_sides_under_every_seed(tmp_path, name):
    """Sides differ between seeds; the columns of a picture do not."""
    root = write_published(name, tmp_path / name)
    tables = []
    for seed in range(3):
        data = preferences.load_pairs(name, root=root, seed=seed)
        pairs = data.pairs.copy()
        image = data.items.set_index("item_id")["image"]
        for side in ("first", "second"):
            pairs[f"image_{side}"] = pairs[side].map(image)
        swap = (pairs["first"] > pairs["second"]).to_numpy()
        ends = [column.removesuffix("_first") for column in pairs if column.endswith("_first")]
        sides = [("first", "second"), *((f"{end}_first", f"{end}_second") for end in ends)]
        ordered = pairs.assign(choice=pairs["choice"].where(~swap, 1 - pairs["choice"]))
        for first, second in sides:
            ordered[first] = pairs[first].where(~swap, pairs[second])
            ordered[second] = pairs[second].where(~swap, pairs[first])
        tables.append(ordered)
    assert (
        not preferences.load_pairs(name, root=root, seed=0)
        .pairs["first"]
        .equals(preferences.load_pairs(name, root=root, seed=1).pairs["first"])
    )
    for other in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], other)
