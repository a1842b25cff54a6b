"""Pick-a-Pic and GenAI-Bench: Parquet files with the pictures inside."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probing import preferences
from probing.errors import UserError
from tests.preferences.published import picture, write


def published_rows(root, name):
    return pd.concat([pd.read_parquet(path) for path in sorted(root.rglob(f"{name}-*.parquet"))], ignore_index=True)


def rewrite(path, change):
    """Change the published rows, keeping types, in one row group."""
    table = pd.read_parquet(path)
    change(table)
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path)


@pytest.fixture
def pickapic(tmp_path):
    return write("pickapic-v1", tmp_path / "pickapic", prompts=10)


def test_pickapic_pairs_are_labelled_comparisons_on_published_sides(pickapic):
    data = preferences.load_pairs("pickapic-v1", root=pickapic)
    for split, name in (("train", "train"), ("validation", "validation_unique"), ("test", "test_unique")):
        rows = published_rows(pickapic, name)
        rows = rows[rows["has_label"]]
        pairs = data.pairs[data.pairs["split"] == split]
        assert pairs["pair_id"].tolist() == rows["ranking_id"].astype(str).tolist()
        assert pairs["choice"].tolist() == rows["label_0"].tolist()
        for side, number in (("first", 0), ("second", 1)):
            assert [i.split("/")[-1] for i in pairs[side]] == rows[f"image_{number}_uid"].tolist()
            assert pairs[f"source_model_{side}"].tolist() == rows[f"model_{number}"].tolist()
        assert pairs["annotator"].tolist() == rows["user_id"].astype(str).tolist()
    assert 0.5 in set(data.pairs["choice"])


def test_a_picture_of_two_comparisons_is_one_item_and_opens_as_itself(pickapic):
    data = preferences.load_pairs("pickapic-v1", root=pickapic)
    assert data.items["item_id"].is_unique
    shown = pd.concat([data.pairs["first"], data.pairs["second"]])
    assert shown.duplicated().any()
    for item in data.items["item_id"][::5]:
        assert data.open_image(item).tobytes() == picture(int(item.split("uid-")[1])).tobytes()


def test_repeated_ranking_ids_stay_apart(pickapic):
    path = next(iter(sorted(pickapic.rglob("test_unique-*.parquet"))))
    rewrite(path, lambda table: table.__setitem__("ranking_id", 5))
    ids = preferences.load_pairs("pickapic-v1", root=pickapic, split="test").pairs["pair_id"]
    assert ids.is_unique and {"5", "5.1"} <= set(ids)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label_0", 0.7, r"has the labels 0\.7 and .*, expected 1 and 0"),
        ("label_1", 1.0, "has the labels"),
        ("caption", "", "has no prompt"),
        ("caption", None, "has no prompt"),
    ],
)
def test_bad_pickapic_records_are_one_sentence(pickapic, column, value, message):
    path = next(iter(sorted(pickapic.rglob("test_unique-*.parquet"))))

    def change(table):
        table.loc[0, ["label_0", "label_1"]] = 1.0, 0.0
        table.loc[0, column] = value

    rewrite(path, change)
    with pytest.raises(UserError, match=message) as error:
        preferences.load_pairs("pickapic-v1", root=pickapic, split="test")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [b"", None, b"no picture", "half"])
def test_bad_pictures_inside_are_named_with_their_record(pickapic, value):
    path = next(iter(sorted(pickapic.rglob("test_unique-*.parquet"))))

    def change(table):
        whole = table.loc[0, "jpg_0"]
        table.at[0, "jpg_0"] = whole[: len(whole) // 2] if value == "half" else value

    rewrite(path, change)
    data = preferences.load_pairs("pickapic-v1", root=pickapic, split="test")
    name = f"{path.relative_to(pickapic)}#0#jpg_0"
    item = data.items.loc[data.items["image"] == name, "item_id"].iloc[0]
    with pytest.raises(UserError, match=r"jpg_0.*") as error:
        data.open_image(item)
    assert item in str(error.value)


def test_pickapic_without_files_or_columns(pickapic, tmp_path):
    with pytest.raises(UserError, match=r"has no train-\*\.parquet"):
        preferences.load_pairs("pickapic-v1", root=tmp_path)
    path = next(iter(sorted(pickapic.rglob("test_unique-*.parquet"))))
    rewrite(path, lambda table: table.drop(columns="caption", inplace=True))
    with pytest.raises(UserError, match="lacks the columns caption"):
        preferences.load_pairs("pickapic-v1", root=pickapic, split="test")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="no whole Parquet file"):
        preferences.load_pairs("pickapic-v1", root=pickapic, split="test")


@pytest.fixture
def genai(tmp_path):
    return write("genai-bench", tmp_path / "genai", prompts=12)


def test_genai_votes(genai):
    rows = published_rows(genai, "test")
    data = preferences.load_pairs("genai-bench", root=genai)
    expected = {"leftvote": 1.0, "rightvote": 0.0, "tievote": 0.5, "bothbad_vote": 0.5}
    assert data.pairs["choice"].tolist() == rows["vote_type"].map(expected).tolist()
    assert data.pairs["vote"].tolist() == rows["vote_type"].tolist()
    assert data.pairs["source_model_first"].tolist() == rows["left_model"].tolist()
    for number, (_, pair) in enumerate(data.pairs.iterrows()):
        assert data.open_image(pair["first"]).tobytes() == picture(2 * number).tobytes()
        assert data.open_image(pair["second"]).tobytes() == picture(2 * number + 1).tobytes()


def test_the_folder_of_the_config_or_its_parent_is_accepted(genai):
    inside = preferences.load_pairs("genai-bench", root=genai / "image_generation")
    assert (
        inside.pairs["pair_id"].tolist() == preferences.load_pairs("genai-bench", root=genai).pairs["pair_id"].tolist()
    )


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("vote_type", "draw", r"'test3' has the vote_type 'draw', expected leftvote"),
        ("left_image", {"bytes": b"", "path": None}, "Record 3 of .* has no left_image"),
        ("prompt", " ", "has no prompt"),
    ],
)
def test_bad_genai_records_are_one_sentence(genai, column, value, message):
    rewrite(
        next(genai.rglob("test-*.parquet")),
        lambda table: table.__setitem__(column, [value if i == 3 else v for i, v in enumerate(table[column])]),
    )
    with pytest.raises(UserError, match=message) as error:
        preferences.load_pairs("genai-bench", root=genai)
    assert "\n" not in str(error.value)


def test_version_one_is_another_file(tmp_path):
    root = write("genai-bench-v1", tmp_path / "v1")
    assert len(preferences.load_pairs("genai-bench-v1", root=root).pairs) == 6
    with pytest.raises(UserError, match=r"has no test-\*\.parquet"):
        preferences.load_pairs("genai-bench", root=root)
