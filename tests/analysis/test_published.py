"""The published values are those of the papers, and are added to tables without changing measured rows."""

from __future__ import annotations

import pandas as pd
import pytest

from probing.analysis.published import (
    BENCHMARKS,
    PAPER_ACCURACY,
    PAPER_COMBINATIONS,
    PAPER_COST,
    PAPER_CURVE,
    PAPER_SIMILARITY,
    add_published_curve,
    add_published_scaling,
    add_published_stages,
    published,
)
from probing.backbones import model_names
from probing.result_tables import measured_rows, published_rows, read_result
from tests.plots.figure_tables import curve_table
from tests.plots.similarity_tables import similarity_tables


def test_every_accuracy_is_a_share_with_its_source_once():
    assert len({(one.source, one.model, one.benchmark, one.training) for one in PAPER_ACCURACY}) == len(PAPER_ACCURACY)
    for one in (*PAPER_ACCURACY, *PAPER_CURVE, *(value for _, value in PAPER_COMBINATIONS)):
        assert 0.4 < one.value < 0.9 and one.source and one.benchmark in BENCHMARKS
        assert one.backbone is None or one.backbone in model_names()


def test_tables_1_and_3_row_by_row():
    (frozen,) = published(benchmark="hpdv3", backbone="sd35-large", training="frozen")
    assert (frozen.value, frozen.source) == (0.723, "DiT-Reward, Table 3")
    trained = published(backbone="sd35-large", training="trained")
    assert [one.value for one in trained] == [0.670, 0.667, 0.856, 0.776]
    hps = [one for one in published(benchmark="pickapic") if one.model == "HPSv3"]
    assert [one.value for one in hps] == [0.651, 0.728]
    assert len([one for one in PAPER_ACCURACY if one.source == "DiT-Reward, Table 1"]) == 9 * 4


def test_figures_and_costs():
    assert [(one.blocks, one.value) for one in PAPER_CURVE] == [((0,), 0.5871), ((24,), 0.7198)]
    assert PAPER_SIMILARITY.within > PAPER_SIMILARITY.across[1] > PAPER_SIMILARITY.across[0]
    pixels, other, latents = (cost.milliseconds for cost in PAPER_COST)
    assert other / latents == pytest.approx(1.65, abs=0.005) and pixels > other


def test_published_rows_leave_measured_rows_unchanged(tmp_path):
    curve = curve_table().assign(model="sd35-large")
    added = add_published_curve(curve)
    pd.testing.assert_frame_equal(measured_rows(added)[curve.columns], curve, check_dtype=False)
    rows = published_rows(added)
    assert list(zip(rows["block"], rows["value"], strict=True)) == [(0, 0.5871), (24, 0.7198)]
    assert set(rows["citation"]) == {"DiT-Reward, Figure 4c"} and rows["n_pairs"].isna().all()
    assert add_published_curve(added) is added
    added.to_csv(tmp_path / "curve.csv", index=False)
    pd.testing.assert_frame_equal(
        read_result(tmp_path / "curve.csv", "a test"), added, check_dtype=False, check_exact=False
    )


def test_tables_of_other_models_are_unchanged():
    curve, stages = curve_table(), similarity_tables()["stage_similarity"]
    assert add_published_curve(curve) is curve and add_published_stages(stages) is stages


def test_stages_have_one_level_within_and_two_across():
    stages = similarity_tables()["stage_similarity"].assign(model="sd35-large")
    added = add_published_stages(stages)
    pd.testing.assert_frame_equal(measured_rows(added)[stages.columns], stages, check_dtype=False)
    rows = published_rows(added)
    assert rows["kind"].tolist() == ["within", "across", "across"] and rows["value"].tolist() == [0.94, 0.71, 0.75]
    assert added["chosen"].dtype == bool and (rows["number"] == 4).all()


def test_scaling_without_fits_takes_published_rows():
    table = pd.DataFrame({"model": ["s"], "kind": "cell", "series": [None], "control": "trained", "value": 0.6})
    table["data"] = "hpdv3"
    rows = published_rows(add_published_scaling(table.astype({"series": float})))
    assert sorted(rows["value"]) == [0.715, 0.723, 0.7352, 0.776]
    assert set(rows["series"]) == {"trained", "frozen"} and set(rows["kind"]) == {"published"}
