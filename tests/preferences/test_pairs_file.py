"""Pairs of a user, as .csv, .parquet and .jsonl."""

from __future__ import annotations

import time

import pandas as pd
import pytest
from PIL import Image

from probing import preferences
from probing.errors import UserError
from tests.preferences.pair_files import write_pairs_file


@pytest.fixture
def pictures(tmp_path):
    """Four pictures, of different colours, under the names a.png … d.png."""
    for name, colour in zip("abcd", ["red", "green", "blue", "white"], strict=True):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
    return tmp_path


ROWS = [
    {"prompt": "a cat", "chosen": "a.png", "rejected": "b.png", "margin": 0.7},
    {"prompt": "a cat", "chosen": "a.png", "rejected": "c.png", "margin": 0.1},
    {"prompt": "a dog", "chosen": "d.png", "rejected": "a.png", "margin": 0.5},
]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_a_file_of_pairs(pictures, suffix):
    data = preferences.load_pairs(write_pairs_file(pictures, ROWS, suffix))
    # a.png under two prompts is two items; under one prompt it is one.
    assert len(data.items) == 5
    assert data.pairs["margin"].tolist() == [0.7, 0.1, 0.5]
    assert set(data.pairs["split"]) == {"train", "test"}
    for row, (_, pair) in zip(ROWS, data.pairs.iterrows(), strict=True):
        chosen = pair["first"] if pair["choice"] == 1 else pair["second"]
        assert chosen.endswith(row["chosen"])
        with Image.open(pictures / row["chosen"]) as image:
            assert data.open_image(chosen).tobytes() == image.tobytes()


def test_sides_are_random_and_never_change(pictures):
    rows = [{"prompt": f"p{i}", "chosen": "a.png", "rejected": "b.png"} for i in range(4000)]
    path = write_pairs_file(pictures, rows)
    data, again = preferences.load_pairs(path), preferences.load_pairs(path)
    assert abs(data.pairs["choice"].mean() - 0.5) < 4 * 0.5 / 4000**0.5
    assert data.pairs.equals(again.pairs)
    other = preferences.load_pairs(path, seed=1)
    assert abs((other.pairs["choice"] == data.pairs["choice"]).mean() - 0.5) < 4 * 0.5 / 4000**0.5


def test_ties_are_kept(pictures):
    rows = [{**ROWS[0], "tie": True}, {**ROWS[2], "tie": False}]
    choices = preferences.load_pairs(write_pairs_file(pictures, rows)).pairs["choice"].tolist()
    assert choices[0] == 0.5
    assert choices[1] in (0.0, 1.0)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize(
    ("text", "tied"), [("no", False), ("False", False), ("0", False), ("", False), ("yes", True), ("TRUE", True)]
)
def test_ties_are_read_in_every_spelling(pictures, suffix, text, tied):
    rows = [{**ROWS[0], "tie": text}, {**ROWS[2], "tie": "true"}]
    choices = preferences.load_pairs(write_pairs_file(pictures, rows, suffix)).pairs["choice"].tolist()
    assert (choices[0] == 0.5, choices[1]) == (tied, 0.5)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_words_that_look_like_numbers_or_gaps_stay_words(pictures, suffix):
    words = ["007", "7", "1.50", "NA", "null", "2024-01-01", "true"]
    rows = [{"prompt": f"p {w}", "chosen": "a.png", "rejected": "b.png", "prompt_id": w, "pair_id": w} for w in words]
    data = preferences.load_pairs(write_pairs_file(pictures, rows, suffix))
    assert data.pairs["pair_id"].tolist() == words
    prompts = data.items.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"]
    assert prompts.to_dict() == {w: f"p {w}" for w in words}
    rows = [{"prompt": w, "chosen": "a.png", "rejected": "b.png"} for w in words]
    assert set(preferences.load_pairs(write_pairs_file(pictures, rows, suffix)).items["prompt"]) == set(words)


def test_an_item_keeps_its_id_whatever_else_is_read(pictures):
    few, all_of_them = (
        set(preferences.load_pairs(write_pairs_file(pictures, rows)).items["item_id"]) for rows in (ROWS[1:], ROWS)
    )
    assert few < all_of_them
    assert preferences.load_pairs(write_pairs_file(pictures, ROWS[::-1])).items["item_id"].isin(all_of_them).all()


def test_both_items_of_a_pair_have_its_prompt_in_one_spelling(pictures):
    rows = [{**ROWS[0], "prompt": "A  Cat"}, ROWS[1], ROWS[2]]
    data = preferences.load_pairs(write_pairs_file(pictures, rows))
    assert data.items.groupby("prompt_id")["prompt"].unique().map(list).tolist().count(["A  Cat"]) == 1
    assert len(data.items) == 5


def test_one_prompt_in_two_spellings_is_not_split(pictures):
    rows = [
        {"prompt": p, "chosen": "a.png", "rejected": "b.png"}
        for p in ["A  Cat", "a cat", "a ｃat", "dog", "owl", "ant"]
    ]
    for seed in range(8):
        splits = preferences.load_pairs(write_pairs_file(pictures, rows), seed=seed).pairs["split"]
        assert splits[:3].nunique() == 1


def test_a_given_split_that_cuts_a_prompt_is_refused(pictures):
    rows = [{**ROWS[0], "split": "train"}, {**ROWS[1], "prompt": "A cat ", "split": "test"}]
    with pytest.raises(UserError, match="1 prompts of mine.*'a cat'; --leaks drop"):
        preferences.load_pairs(write_pairs_file(pictures, rows))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "a", "chosen": "a.png"}], "lacks the columns rejected"),
        ([ROWS[0], {**ROWS[2], "prompt": None}], "Record 1 of mine has no prompt"),
        ([{**ROWS[0], "rejected": "a.png"}, ROWS[2]], "'pair0' compares an item with itself"),
        ([ROWS[0]], "at least 2 different prompts"),
        (
            [{**ROWS[0], "prompt_id": "1"}, {**ROWS[2], "prompt_id": "1"}],
            "'1' of mine has two prompts, 'a cat' and 'a dog'",
        ),
        ([{**ROWS[0], "prompt_id": "1"}, {**ROWS[2], "prompt_id": None}], "Record 1 of mine has no prompt_id"),
        ([{**ROWS[0], "tie": "perhaps"}, ROWS[2]], "Record 0 of mine has the tie 'perhaps'; write true or false"),
        ([{**ROWS[0], "choice": 1}, ROWS[2]], "has the columns choice, which are reserved"),
        ([{**ROWS[0], "margin": "big"}, ROWS[2]], "'pair0' has the margin 'big', which is no number"),
        ([{**ROWS[0], "split": "trial"}, {**ROWS[2], "split": "test"}], "unknown split"),
        ([{**ROWS[0], "pair_id": "x"}, {**ROWS[2], "pair_id": "x"}], "'x' is repeated"),
    ],
)
def test_bad_files_are_one_sentence(pictures, rows, message):
    with pytest.raises(UserError, match=message):
        preferences.load_pairs(write_pairs_file(pictures, rows))


def test_a_picture_that_cannot_be_read(pictures):
    data = preferences.load_pairs(write_pairs_file(pictures, ROWS))
    whole = (pictures / "a.png").read_bytes()
    item = data.items.loc[data.items["image"] == "a.png", "item_id"].iloc[0]
    for damage in (whole[: len(whole) // 2], b"", b"not a picture"):
        (pictures / "a.png").write_bytes(damage)
        with pytest.raises(UserError, match=rf"a\.png of record '{item}' cannot be read"):
            data.open_image(item)
    (pictures / "a.png").unlink()
    with pytest.raises(UserError, match="missing"):
        data.open_image(item)


def test_a_picture_too_large_to_be_one_is_named(pictures, monkeypatch):
    data = preferences.load_pairs(write_pairs_file(pictures, ROWS))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match="cannot be read.*decompression bomb"):
        data.open_image(data.items["item_id"].iloc[0])


def test_many_pairs_are_listed_in_seconds(pictures):
    count = 200_000
    table = pd.DataFrame({"prompt": [f"prompt {i // 2}" for i in range(count)], "chosen": "a.png", "rejected": "b.png"})
    table.to_parquet(pictures / "many.parquet")
    began = time.monotonic()
    data = preferences.load_pairs(str(pictures / "many.parquet"))
    assert len(data.pairs) == count
    assert len(data.items) == count
    # A guard against work per pair, twenty times what it takes.
    assert time.monotonic() - began < 60


def test_unknown_names_show_near_ones_and_bad_files_are_named(tmp_path):
    with pytest.raises(UserError, match="did you mean hpdv3"):
        preferences.load_pairs("hpdv4")
    with pytest.raises(UserError, match="There is no file"):
        preferences.load_pairs(str(tmp_path / "none.csv"))
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(UserError, match=r"is no \.parquet table"):
        preferences.load_pairs(str(tmp_path / "bad.parquet"))
