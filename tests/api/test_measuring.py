"""What the experiments' functions pass on, and what their results summarise."""

from __future__ import annotations

import pandas as pd
import pytest

import probing
from probing.api import measuring
from probing.api.result import Result
from probing.experiments import EXPERIMENTS

CURVE = pd.DataFrame({"facet": ["quality"], "value": [0.7]})


@pytest.mark.parametrize(("selected", "recorded"), [("train", "train"), (None, None)])
def test_split_of_pictures_is_recorded(selected, recorded, monkeypatch):
    monkeypatch.setattr(measuring, "measure_context", lambda spec, context, settings, **options: context)
    data = probing.load_pairs("testbed", split=selected, limit=24)
    assert probing.similarity("testbed-xs", data).split == recorded


def test_curve_on_disk_is_given_by_path(tmp_path):
    result = Result("reward-curve", {"reward_curve": CURVE})
    saved = result.save(tmp_path)
    settings = [measuring._settings(EXPERIMENTS["token-maps"], {"curve": curve}).curve for curve in (result, saved)]
    assert settings[0] is CURVE
    assert settings[1] == str(tmp_path / "reward_curve.parquet")


def test_summary_is_report_or_statements():
    trends = pd.DataFrame(
        {
            "facet": "quality",
            "kind": "fit",
            "head": ["best", "depth 0.5"],
            "stream": "image",
            "sigma": 0.6,
            "statement": ["rises.", "falls."],
        }
    )
    scaling = Result("scaling", {"scaling": trends})
    assert scaling.summary == scaling.statements == ["quality, head best, image, σ = 0.6: rises."]
    maps = Result("token-maps", {"token_maps": pd.DataFrame({"facet": [], "reward": [], "store_reward": []})})
    assert maps.statements == [] and maps.summary[-1].startswith("Means of token scores differ")
