"""Tables of similarity and stages say what was planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probing.analysis import similarity, stages
from probing.analysis.similarity import similarity_by_prompt, similarity_table
from probing.analysis.stage_table import blocks_of_stages, select_stages
from probing.analysis.stages import find_stages, stage_similarity
from probing.errors import UserError
from probing.statistics import cluster_bootstrap
from tests.fakes.fake_similarity import ABOUT, LENGTHS, Matrices, Site, measured, planted


@pytest.fixture(scope="module")
def found():
    return measured()


@pytest.fixture(scope="module")
def table(found):
    return find_stages(found, ABOUT, resamples=100)


def test_planted_stages_are_found_at_every_place(found, table):
    assert tuple(table.columns) == stages.COLUMNS
    chosen = table[table["chosen"]]
    for _, rows in chosen[chosen["measure"] == "cka"].groupby("sigma"):
        assert rows["stage"].tolist() == ["B1", "B2", "B3", "B4"]
        assert (rows["last_block"] - rows["first_block"] + 1).tolist() == list(LENGTHS)
        assert (rows["number"] == 4).all() and (rows["stability"] > 0.9).all() and (rows["p_value"] < 0.05).all()
        np.testing.assert_allclose(rows["within"].dropna(), 0.94, atol=0.02)
        assert rows["within"].isna().tolist() == [False, False, True, False]
    assert (chosen.loc[chosen["measure"] == "cosine", "number"] == 1).all()


def test_every_number_has_its_best_stages_and_covers_all_blocks(table):
    for (_, _, number), rows in table.groupby(["measure", "sigma", "number"]):
        assert len(rows) == number
        assert [block for run in blocks_of_stages(rows).values() for block in run] == list(range(10))
        assert rows["border_stability"].iloc[0] == 1.0
    shares = table.drop_duplicates(["measure", "sigma", "number"]).groupby(["measure", "sigma"])["number_stability"]
    np.testing.assert_allclose(shares.sum(), 1)


def test_selection_takes_one_segmentation(table):
    four = select_stages(table, measure="cka", sigma=0.6)
    assert blocks_of_stages(four) == {"B1": [0, 1], "B2": [2, 3, 4], "B3": [5], "B4": [6, 7, 8, 9]}
    first = select_stages(table)
    assert (first["source"] == "images").all() and (first["sigma"] == 0.005).all()
    assert len(select_stages(table, measure="cosine")) == 1
    assert len(select_stages(table, measure="cosine", number=3)) == 3
    step = select_stages(table, source="trajectory", step=39, measure="cka")
    assert (step["sigma"] == 0.03).all() and len(step) == 4


def test_selection_works_on_a_table_read_from_csv(table, tmp_path):
    table.to_csv(tmp_path / "stages.csv", index=False)
    again = pd.read_csv(tmp_path / "stages.csv")
    for asked in ({"measure": "cka"}, {"source": "trajectory", "step": 0}, {"measure": "cosine", "number": 2}):
        assert blocks_of_stages(select_stages(again, **asked)) == blocks_of_stages(select_stages(table, **asked))


def test_what_is_not_in_the_table_of_stages_is_refused(table):
    with pytest.raises(UserError, match="none with measure knn, stream image, control none; python -m"):
        select_stages(table, measure="knn")


def test_similarity_is_the_mean_over_prompts_with_its_interval(found, table):
    means = similarity_table(found, ABOUT, table, num_blocks=10)
    assert tuple(means.columns) == similarity.COLUMNS
    assert len(means) == len(found) * 55 and (means["block"] <= means["other"]).all()
    one = found[2]
    row = means[(means["measure"] == "cka") & (means["sigma"] == 0.6) & (means["block"] == 1) & (means["other"] == 7)]
    own = one.values[:, 1, 7]
    interval = cluster_bootstrap(own, one.prompt_ids)
    assert row["value"].item() == pytest.approx(own.mean()) and row["std"].item() == pytest.approx(own.std(ddof=1))
    assert (row["ci_low"].item(), row["ci_high"].item()) == pytest.approx((interval.low, interval.high))
    assert (row["stage"].item(), row["other_stage"].item()) == ("B1", "B4")
    assert row["n_prompts"].item() == 20 and row["n_items"].item() == 40
    assert pd.isna(row["step"].item()) and means["step"].dropna().unique().tolist() == [0, 39]


def test_prompts_count_once_however_many_items_they_have(table, found):
    one = found[0]
    uneven = Matrices(one.site, one.blocks, one.prompt_ids, np.arange(1, 21), one.values)
    same = similarity_table([uneven], ABOUT, table, num_blocks=10)["value"]
    np.testing.assert_allclose(same, similarity_table([one], ABOUT, table, num_blocks=10)["value"])


def test_every_prompt_is_listed_and_gives_the_mean(found):
    listed = similarity_by_prompt(found[:1], ABOUT)
    assert len(listed) == 20 * 45
    values = listed.pivot(index="prompt_id", columns=["block", "other"], values="value")
    assert values[(0, 3)].mean() == pytest.approx(found[0].values[:, 0, 3].mean())


def test_within_and_across_are_means_over_pairs_of_blocks(found, table):
    means = stage_similarity(found, ABOUT, table)
    assert tuple(means.columns) == stages.SIMILARITY_COLUMNS
    rows = means[(means["measure"] == "cka") & (means["sigma"] == 0.6) & (means["number"] == 4)]
    values = found[2].values
    pairs = {"within": [], "across": []}
    label = np.repeat(range(4), LENGTHS)
    for i in range(10):
        for j in range(i):
            pairs["within" if label[i] == label[j] else "across"].append(values[:, i, j])
    for kind, lists in pairs.items():
        row = rows[(rows["kind"] == kind) & (rows["stage"] == "all")]
        by_prompt = np.mean(lists, axis=0)
        assert row["value"].item() == pytest.approx(by_prompt.mean())
        assert row["std"].item() == pytest.approx(by_prompt.std(ddof=1))
        assert row["n_block_pairs"].item() == len(lists)
        assert row["ci_low"].item() < row["value"].item() < row["ci_high"].item()
    named = rows[rows["stage"] != "all"]
    # A stage of one block has no two different ones.
    assert ("B3", "B3") not in set(zip(named["stage"], named["other_stage"], strict=True))
    assert len(named) == 3 + 6 and named["n_block_pairs"].sum() == 45


def test_the_stages_of_the_lowest_level_are_followed_and_four_stand_in_for_one(found, table):
    means = stage_similarity(found, ABOUT, table)
    assert set(means.loc[means["source"] == "images", "stages_sigma"]) == {0.005}
    along = means[means["source"] == "trajectory"]
    assert set(along["stages_step"]) == {39}
    numbers = means[means["stage"] == "all"].groupby("measure")["number"].unique()
    assert sorted(numbers["cka"]) == [4] and sorted(numbers["cosine"]) == [1, 4]


def test_distance_alone_explains_a_drift_and_not_stages(found, table):
    means = stage_similarity(found, ABOUT, table).query("stage == 'all' and number == 4 and source == 'images'")
    gap = means.pivot(index=["measure", "sigma"], columns="kind", values=["value", "drift"])
    beyond = (gap["value"]["within"] - gap["value"]["across"]) - (gap["drift"]["within"] - gap["drift"]["across"])
    assert (beyond["cka"] > 0.08).all() and (beyond["cosine"].abs() < 0.02).all()


def test_mistakes():
    with pytest.raises(UserError, match=r"at least 2 of them, got 1 .*raise --limit"):
        find_stages([planted(prompts=1)], ABOUT)
    with pytest.raises(UserError, match="--shortest-stage is 1 … 10 blocks"):
        find_stages([planted()], ABOUT, shortest=11)
    one = planted((3,))
    with pytest.raises(UserError, match=r"two or more in a row, got blocks \[0, 2, 3\]"):
        find_stages([Matrices(one.site, (0, 2, 3), one.prompt_ids, one.items, one.values)], ABOUT)


def test_a_level_of_the_samplers_grid_is_named_as_it_is_meant():
    grid = planted(site=Site("trajectory", float(np.float32(0.3)), 3, "image", "all", "cka"))
    assert find_stages([grid], ABOUT, resamples=20)["sigma"].unique().tolist() == [0.3]
