"""Data sets of rated pictures: pairs by each rating, what was not rated, heat maps, and two sets of one name."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from probing import preferences
from probing.errors import UserError
from probing.preferences.benchmarks.rankings import comparisons_by_rating
from tests.preferences.published import DIMENSIONS, RATED_MODELS, picture, write


def rows_of(root, name="train"):
    return pq.read_table(next(root.rglob(f"{name}-*.parquet"))).to_pylist()


def rewrite(root, change, name="train"):
    """Change the published rows; a change returns rows, or edits them."""
    path = next(root.rglob(f"{name}-*.parquet"))
    rows = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist(change(rows) or rows), path)


def compared(pairs, facet):
    """Return what was chosen of each pair of pictures, by the smaller name."""
    part = pairs[pairs["facet"] == facet]
    return {
        tuple(sorted((a, b))): (choice if a < b else 1 - choice)
        for a, b, choice in zip(part["first"], part["second"], part["choice"], strict=True)
    }


def expected_choices(items, ratings):
    """Compare all pictures of a prompt, by hand."""
    rated = items.assign(rating=items["image"].map(ratings)).dropna(subset="rating")
    found = {}
    for _, group in rated.groupby("prompt_id"):
        for (a, x), (b, y) in itertools.combinations(sorted(zip(group["item_id"], group["rating"], strict=True)), 2):
            found[a, b] = 0.5 + 0.5 * np.sign(x - y)
    return found


def place(root, number, column="image", name="train"):
    path = next(root.rglob(f"{name}-*.parquet"))
    return f"{path.relative_to(root).as_posix()}#{number}#{column}"


def test_each_dimension_of_visionreward_is_a_facet_of_the_pictures_that_were_graded_in_it(tmp_path):
    root = write("visionreward", tmp_path / "v")
    data = preferences.load_pairs("visionreward", root=root)
    assert set(data.pairs["facet"]) == set(DIMENSIONS)
    for name in ("symmetry", "hands", "face"):
        column = DIMENSIONS.index(name)
        grades = {
            place(root, number): row["annotation"][name] if row["meta_mask"][column] else None
            for number, row in enumerate(rows_of(root))
        }
        assert None in grades.values() or name == "symmetry"
        assert compared(data.pairs, name) == expected_choices(data.items, grades)


def test_a_mask_of_questions_leaves_out_pictures_of_which_nothing_was_asked(tmp_path):
    root = write("visionreward", tmp_path / "v")
    rewrite(root, lambda rows: [{**r, "meta_mask": [int(n > 2)] * 64} for n, r in enumerate(rows)])
    items = preferences.load_pairs("visionreward", root=root).items
    assert not set(items["image"]) & {place(root, number) for number in range(3)}


@pytest.mark.parametrize("stringified", [False, True])
def test_rapidata_is_compared_by_three_scores(tmp_path, stringified):
    root = write("rapidata", tmp_path / "r")
    if stringified:
        rewrite(root, lambda rows: [{k: str(v) if "score" in k and v else v for k, v in row.items()} for row in rows])
    data = preferences.load_pairs("rapidata", root=root)
    for facet in ("alignment", "coherence", "style"):
        scores = {place(root, n): float(row[f"{facet}_score_norm"]) for n, row in enumerate(rows_of(root))}
        assert compared(data.pairs, facet) == expected_choices(data.items, scores)


def test_a_heat_map_that_was_not_asked_for_is_none_and_not_zero(tmp_path):
    root = write("rapidata", tmp_path / "r")
    data = preferences.load_pairs("rapidata", root=root)
    assert data.heat_map_kinds == ("misalignment", "artifacts")
    rows, seen = rows_of(root), []
    for item, name in zip(data.items["item_id"], data.items["image"], strict=True):
        row = rows[int(name.split("#")[1])]
        assert data.open_image(item).tobytes() == picture(int(name.split("#")[1])).tobytes()
        for kind, column in (("misalignment", "alignment_heatmap"), ("artifacts", "coherence_heatmap")):
            found = data.heat_map(item, kind)
            seen.append(found is None)
            if row[column] is None:
                assert found is None
            else:
                np.testing.assert_array_equal(found, np.array(row[column], dtype=np.float32))
    assert any(seen) and not all(seen)
    with pytest.raises(UserError, match="has no heat map 'beauty'; it has misalignment, artifacts"):
        data.heat_map(data.items["item_id"].iloc[0], "beauty")


def test_richhf_has_grey_pictures_as_maps_and_ties_where_the_mirror_lacks_a_score(tmp_path):
    root = write("richhf", tmp_path / "r")
    data = preferences.load_pairs("richhf", root=root)
    assert set(data.pairs["split"]) == {"train", "validation", "test"}
    assert set(data.pairs.loc[data.pairs["facet"] == "overall", "choice"]) == {0.5}
    scores = {
        place(root, number, name=name): row["artifact_score"]
        for name in ("train", "dev", "test")
        for number, row in enumerate(rows_of(root, name))
    }
    assert compared(data.pairs, "plausibility") == expected_choices(data.items, scores)
    found = data.heat_map(data.items["item_id"].iloc[0], "artifacts")
    assert found.shape == (8, 8) and 0 <= found.min() < found.max() <= 1
    assert preferences.load_pairs("richhf", root=root, split="test").pairs["split"].unique().tolist() == ["test"]


def test_tfrecords_of_richhf_are_refused_with_the_mirror(tmp_path):
    (tmp_path / "train.tfrecord").write_bytes(b"x")
    with pytest.raises(UserError, match="neither prompts nor pictures; .*richhf_18k_with_images"):
        preferences.load_pairs("richhf", root=tmp_path)


@pytest.mark.parametrize("stringified", [False, True])
def test_genai_bench_1600_compares_mean_ratings_of_six_models(tmp_path, stringified):
    root = write("genai-bench-1600", tmp_path / "g", prompts=5)
    means = {
        place(root, number, model): np.mean(row["HumanRating"][model])
        for number, row in enumerate(rows_of(root))
        for model in RATED_MODELS
    }
    if stringified:
        rewrite(root, lambda rows: [{**row, "HumanRating": json.dumps(row["HumanRating"])} for row in rows])
    data = preferences.load_pairs("genai-bench-1600", root=root)
    # 1,600 prompts would give 24,000 pairs, of which 18,099 are not tied.
    assert len(data.pairs) == 5 * 15
    assert compared(data.pairs, "all") == expected_choices(data.items, means)
    assert set(data.pairs["source_model_first"]) <= set(RATED_MODELS)


def test_two_sets_of_one_name_are_not_taken_for_each_other(tmp_path):
    other, arena = write("genai-bench-1600", tmp_path / "a"), write("genai-bench", tmp_path / "b")
    (other / "image_generation").mkdir()
    (other / "data" / "train-00000-of-00001.parquet").rename(other / "image_generation" / "test-00000-of-1.parquet")
    with pytest.raises(UserError, match="give --data genai-bench-1600"):
        preferences.load_pairs("genai-bench", root=other)
    (arena / "data").mkdir()
    next(arena.rglob("*.parquet")).rename(arena / "data" / "train-00000-of-00001.parquet")
    with pytest.raises(UserError, match="give --data genai-bench for it"):
        preferences.load_pairs("genai-bench-1600", root=arena)


@pytest.mark.parametrize(
    ("name", "column", "value", "message"),
    [
        ("visionreward", "annotation", None, "expected one grade a dimension"),
        ("visionreward", "annotation", '{"symmetry": "high"}', "'{.*high.*' *, expected one grade a dimension"),
        ("visionreward", "meta_mask", "yes", "has 'yes', expected a list of 0 and 1"),
        ("visionreward", "prompt", "", "has no prompt"),
        ("rapidata", "image", None, "Record 0 of .* has no image"),
        ("rapidata", "style_score_norm", "much", "'much', which is no number"),
        ("richhf", "artifact_score", "inf", "'inf', which is no number"),
        ("genai-bench-1600", "HumanRating", "[1, 2]", "expected a list of ratings for each model"),
        ("genai-bench-1600", "HumanRating", '{"SD9": [1]}', "rates 'SD9', of which the file has no pictures"),
        ("genai-bench-1600", "Prompt", None, "has no Prompt"),
    ],
)
def test_bad_records_are_one_sentence(tmp_path, name, column, value, message):
    root = write(name, tmp_path / name)

    def change(rows):
        text = value is not None and column not in ("prompt", "Prompt")
        for row in rows:
            # One type a column.
            row[column] = json.dumps(row[column]) if text and not isinstance(row[column], str) else row[column]
        rows[0][column] = value

    rewrite(root, change)
    with pytest.raises(UserError, match=message) as error:
        preferences.load_pairs(name, root=root)
    assert "\n" not in str(error.value)


def test_ratings_become_all_pairs_of_a_prompt_and_gaps_become_none():
    rows = pd.DataFrame(
        {"prompt": ["a", "a", "b", "a", "c"], "picture": list("vwxyz"), "one": [1.0, 2, 5, 1, np.nan], "two": np.nan}
    )
    pairs = comparisons_by_rating(rows, {"one": "one", "two": "two"})
    assert pairs[["first", "second", "choice"]].to_numpy().tolist() == [["v", "w", 0], ["v", "y", 0.5], ["w", "y", 1]]
    with pytest.raises(UserError, match="No prompt has two rated pictures"):
        comparisons_by_rating(rows, {"two": "two"})
