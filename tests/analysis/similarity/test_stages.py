"""Tables of similarity and stages show the planted stages."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probing.analysis.similarity import (
    blocks_of_stages,
    find_stages,
    select_stages,
    similarity_by_prompt,
    similarity_table,
    stage_similarity,
    stages,
    tables,
)
from probing.errors import UserError
from probing.statistics import mean_interval
from tests.fakes.fake_similarity import LENGTHS, SUBJECT, Matrices, Site, measured, planted


@pytest.fixture(scope="module")
def matrices():
    return measured()


@pytest.fixture(scope="module")
def table(matrices):
    return find_stages(matrices, SUBJECT, resamples=100)


def test_planted_stages_are_found_at_every_site(matrices, table):
    assert tuple(table.columns) == stages.COLUMNS
    chosen = table[table["chosen"]]
    for _, rows in chosen[chosen["measure"] == "cka"].groupby("sigma"):
        assert rows["stage"].tolist() == ["B1", "B2", "B3", "B4"]
        assert (rows["last_block"] - rows["first_block"] + 1).tolist() == list(LENGTHS)
        assert (rows["number"] == 4).all() and (rows["stability"] > 0.9).all() and (rows["p_value"] < 0.05).all()
        np.testing.assert_allclose(rows["within"].dropna(), 0.94, atol=0.02)
        assert rows["within"].isna().tolist() == [False, False, True, False]
    assert (chosen.loc[chosen["measure"] == "cosine", "number"] == 1).all()


def test_every_segmentation_covers_all_blocks(table):
    for (_, _, number), rows in table.groupby(["measure", "sigma", "number"]):
        assert len(rows) == number
        assert [block for run in blocks_of_stages(rows).values() for block in run] == list(range(10))
        assert rows["border_stability"].iloc[0] == 1.0
    shares = table.drop_duplicates(["measure", "sigma", "number"]).groupby(["measure", "sigma"])["number_stability"]
    np.testing.assert_allclose(shares.sum(), 1)


def test_selection_returns_one_segmentation(table):
    four = select_stages(table, measure="cka", sigma=0.6)
    assert blocks_of_stages(four) == {"B1": [0, 1], "B2": [2, 3, 4], "B3": [5], "B4": [6, 7, 8, 9]}
    first = select_stages(table)
    assert (first["source"] == "images").all() and (first["sigma"] == 0.005).all()
    assert len(select_stages(table, measure="cosine")) == 1
    assert len(select_stages(table, measure="cosine", number=3)) == 3
    step = select_stages(table, source="trajectory", step=39, measure="cka")
    assert (step["sigma"] == 0.03).all() and len(step) == 4


def test_selection_reads_a_table_from_csv(table, tmp_path):
    table.to_csv(tmp_path / "stages.csv", index=False)
    again = pd.read_csv(tmp_path / "stages.csv")
    for selection in ({"measure": "cka"}, {"source": "trajectory", "step": 0}, {"measure": "cosine", "number": 2}):
        assert blocks_of_stages(select_stages(again, **selection)) == blocks_of_stages(
            select_stages(table, **selection)
        )


def test_missing_stages_are_refused(table):
    with pytest.raises(
        UserError, match="none with measure knn, stream image, control trained; python -m probing.measure similarity"
    ):
        select_stages(table, measure="knn")


def test_similarity_is_the_mean_over_prompts(matrices, table):
    means = similarity_table(matrices, SUBJECT, table, num_blocks=10)
    assert tuple(means.columns) == tables.COLUMNS
    assert len(means) == len(matrices) * 55 and (means["block"] <= means["other"]).all()
    one = matrices[2]
    row = means[(means["measure"] == "cka") & (means["sigma"] == 0.6) & (means["block"] == 1) & (means["other"] == 7)]
    values = one.values[:, 1, 7]
    interval = mean_interval(values, one.prompt_ids)
    assert row["value"].item() == pytest.approx(values.mean()) and row["std"].item() == pytest.approx(
        values.std(ddof=1)
    )
    assert (row["ci_low"].item(), row["ci_high"].item()) == pytest.approx((interval.low, interval.high))
    assert (row["stage"].item(), row["other_stage"].item()) == ("B1", "B4")
    assert row["n_prompts"].item() == 20 and row["n_items"].item() == 40
    assert pd.isna(row["step"].item()) and means["step"].dropna().unique().tolist() == [0, 39]


def test_prompts_have_equal_weight(table, matrices):
    one = matrices[0]
    uneven = Matrices(one.site, one.blocks, one.prompt_ids, np.arange(1, 21), one.values)
    same = similarity_table([uneven], SUBJECT, table, num_blocks=10)["value"]
    np.testing.assert_allclose(same, similarity_table([one], SUBJECT, table, num_blocks=10)["value"])


def test_the_table_by_prompt_lists_every_prompt(matrices):
    listed = similarity_by_prompt(matrices[:1], SUBJECT)
    assert len(listed) == 20 * 45
    values = listed.pivot(index="prompt_id", columns=["block", "other"], values="value")
    assert values[(0, 3)].mean() == pytest.approx(matrices[0].values[:, 0, 3].mean())


def test_within_and_across_are_means_over_block_pairs(matrices, table):
    means = stage_similarity(matrices, SUBJECT, table)
    assert tuple(means.columns) == stages.SIMILARITY_COLUMNS
    rows = means[(means["measure"] == "cka") & (means["sigma"] == 0.6) & (means["number"] == 4)]
    values = matrices[2].values
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
    # A stage of one block has no pair of different blocks.
    assert ("B3", "B3") not in set(zip(named["stage"], named["other_stage"], strict=True))
    assert len(named) == 3 + 6 and named["n_block_pairs"].sum() == 45


def test_stages_of_the_lowest_level_are_followed(matrices, table):
    means = stage_similarity(matrices, SUBJECT, table)
    assert set(means.loc[means["source"] == "images", "stages_sigma"]) == {0.005}
    along = means[means["source"] == "trajectory"]
    assert set(along["stages_step"]) == {39}
    numbers = means[means["stage"] == "all"].groupby("measure")["number"].unique()
    assert sorted(numbers["cka"]) == [4] and sorted(numbers["cosine"]) == [1, 4]


def test_distance_explains_a_drift_but_not_stages(matrices, table):
    means = stage_similarity(matrices, SUBJECT, table).query("stage == 'all' and number == 4 and source == 'images'")
    gap = means.pivot(index=["measure", "sigma"], columns="kind", values=["value", "drift"])
    beyond = (gap["value"]["within"] - gap["value"]["across"]) - (gap["drift"]["within"] - gap["drift"]["across"])
    assert (beyond["cka"] > 0.08).all() and (beyond["cosine"].abs() < 0.02).all()


def test_bad_matrices_and_settings_are_refused():
    with pytest.raises(UserError, match=r"at least 2 of them, got 1 .*raise --limit"):
        find_stages([planted(prompts=1)], SUBJECT)
    with pytest.raises(UserError, match="--shortest-stage is 1 … 10 blocks"):
        find_stages([planted()], SUBJECT, shortest=11)
    one = planted((3,))
    with pytest.raises(UserError, match=r"two or more in a row, got blocks \[0, 2, 3\]"):
        find_stages([Matrices(one.site, (0, 2, 3), one.prompt_ids, one.items, one.values)], SUBJECT)


def test_levels_of_the_samplers_grid_are_rounded():
    grid = planted(site=Site("trajectory", float(np.float32(0.3)), 3, "image", "all", "cka"))
    assert find_stages([grid], SUBJECT, resamples=20)["sigma"].unique().tolist() == [0.3]
