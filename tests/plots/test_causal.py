"""The figures of the causal curve are drawn from their tables: what is read, what is used, which is decided."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probing.plots import figure_causal_curve, figure_dose_response, plot_dose_response, plot_reading, plot_use


@pytest.fixture(scope="module")
def curve():
    rows = []
    for facet, metric in (("alignment", "alignment"), ("quality", "fidelity")):
        for probe, control in (("logistic", "trained"), ("mean_difference", "trained"), ("logistic", "random")):
            for block in range(4):
                for name in ("alignment", "fidelity"):
                    effect = 0.02 * block if control == "trained" and name == metric else 0.0
                    rows.append(
                        {"model": "testbed-s", "facet": facet, "probe": probe, "control": control, "block": block}
                        | {"metric": name, "target": name == metric, "dose": 4.0, "n_prompts": 96, "effect": effect}
                        | {"ci_low": effect - 0.01, "ci_high": effect + 0.01, "sigma": 0.6, "ceiling": 0.9}
                        | {"reading": 0.5 + 0.05 * block, "reading_low": 0.45, "reading_high": 0.75}
                        | {"verdict": "above" if effect > 0.01 else "not distinguished"}
                    )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def responses(curve):
    rows = curve[curve["block"] == 2].drop(columns=["dose", "effect", "ci_low", "ci_high"])
    parts = [
        rows.assign(dose=dose, change=0.01 * dose, change_low=0.01 * dose - 0.02, change_high=0.01 * dose + 0.02)
        for dose in (-4.0, -1.0, 1.0, 4.0)
    ]
    return pd.concat(parts, ignore_index=True)


def test_use_is_in_points_and_decided_blocks_are_filled(curve):
    ax = plot_use(curve, facet="quality")
    trained = next(line for line in ax.lines if len(line.get_xdata()) == 4)
    np.testing.assert_allclose(trained.get_ydata(), [0, 2, 4, 6])
    filled = next(line for line in ax.lines if line.get_linestyle() == "None" and len(line.get_xdata()))
    assert list(filled.get_xdata()) == [1, 2, 3]
    assert "judged fidelity" in ax.get_ylabel() and "4 SD" in ax.get_ylabel()


def test_reading_is_the_accuracy(curve):
    ax = plot_reading(curve, facet="alignment")
    line = next(line for line in ax.lines if len(line.get_xdata()) == 4)
    np.testing.assert_allclose(line.get_ydata(), [0.5, 0.55, 0.6, 0.65])
    with pytest.raises(ValueError, match="Got facet 'x'"):
        plot_reading(curve, facet="x")


def test_doses_are_drawn_in_order(responses):
    ax = plot_dose_response(responses, facet="alignment", metric="fidelity")
    line = next(line for line in ax.lines if len(line.get_xdata()) == 4)
    assert list(line.get_xdata()) == [-4, -1, 1, 4]
    np.testing.assert_allclose(line.get_ydata(), [-4, -1, 1, 4])


def test_every_facet_has_its_column(curve, responses):
    figure = figure_causal_curve(curve)
    assert [ax.get_title().split(",")[0] for ax in figure.axes[:2]] == ["alignment", "quality"]
    assert len(figure.axes) == 4 and len(figure_dose_response(responses).axes) == 4
