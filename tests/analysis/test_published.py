"""The published values are those of the tables, and say where they are from."""

from __future__ import annotations

import pytest

from probing.analysis.published import (
    BENCHMARKS,
    PAPER_ACCURACY,
    PAPER_COMBINATIONS,
    PAPER_COST,
    PAPER_CURVE,
    PAPER_SIMILARITY,
    published,
)
from probing.backbones import model_names


def test_every_accuracy_is_a_share_with_its_source_and_stands_once():
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
