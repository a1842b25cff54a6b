"""The command of the causal curve, whole, on the smallest setting."""

from __future__ import annotations

import pandas as pd
import pytest

from probing.testbed.causal import CausalOptions, run

OPTIONS = {"model": "testbed-xs", "captions": 4, "doses": (4.0,), "responses": (4.0,), "steps": 2, "limit": 400}


@pytest.mark.slow
def test_the_whole_command(tmp_path, capsys):
    options = CausalOptions(**OPTIONS, cache=tmp_path / "cache", output=tmp_path / "figures")
    run(options)
    assert "Figures: causal_curve, dose_response" in capsys.readouterr().out
    curve, responses, correlations, erased = (
        pd.read_csv(tmp_path / "figures" / f"{name}.csv")
        for name in ("causal_curve", "dose_response", "causal_correlation", "erasure")
    )
    assert set(curve["block"]) == set(range(6)) and set(curve["facet"]) == {"alignment", "quality"}
    assert set(zip(curve["probe"], curve["control"], strict=True)) == {
        ("logistic", "trained"), ("logistic", "shuffled"), ("logistic", "random"), ("logistic", "random-init"),
        ("mean_difference", "trained"),
    }  # fmt: skip
    assert curve["reading"].between(0, 1).all() and curve["target"].sum() == len(curve) / 4
    assert set(responses["dose"]) == {-4.0, 4.0} and correlations["correlation"].dropna().between(-1, 1).all()
    # A probe that is trained anew behind the eraser reads nothing; behind a random one it still does.
    certificate = erased.drop_duplicates(["facet", "control", "block"]).groupby("control")["reading"].mean()
    assert certificate["trained"] < certificate["random"]
    generated = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "generated").iterdir()}
    run(options)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "generated").iterdir()} == generated
