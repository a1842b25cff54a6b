"""Scaling: planted slopes are measured, and checkpoints and controls have separate trends."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import linregress, t

from probing.analysis.engine import Sites
from probing.analysis.scaling import ScalingSettings, measure_scaling
from probing.analysis.scaling.experiment import COLUMNS
from probing.analysis.scaling.model_sizes import size_of, training_steps
from probing.errors import UserError
from probing.plots.scaling import _points, figure_scaling
from probing.shipped import WEIGHTS
from tests.fakes.planted_store import PlantedStore, planted_pairs

STEPS = json.loads((WEIGHTS / "xs" / "card.json").read_text())["steps"]
CHECKPOINTS = [(f"testbed-{path.name}", int(path.name[-5:])) for path in (WEIGHTS / "trainings").glob("xs-step*")]
SIZES = {"xs": (4, 8, 1e6), "s": (6, 10, 1e7), "m": (8, 12, 1e8), "l": (10, 14, 1e9)}


@pytest.fixture(scope="module")
def pairs():
    return planted_pairs(test=500)


def model(pairs, name, strength, *, random_init=False, seed=0, **changed):
    blocks, width, parameters = SIZES[name]
    attributes = {
        "model": name,
        "parameters": parameters,
        "forward_flops": 3e3 * parameters,
        "random_init": random_init,
        "revision": f"{name}{random_init}{seed}",
        **changed,
    }
    return PlantedStore(
        pairs,
        lambda *site: (strength, strength),
        num_blocks=blocks,
        width=width,
        seed=seed + 17 * blocks + 1000 * random_init,
        **attributes,
    )


@pytest.fixture(scope="module")
def planted(pairs):
    """Larger models carry more; random-initialised ones nothing; one has checkpoints."""
    strengths = {"xs": 0.2, "s": 0.4, "m": 0.7, "l": 1.2}
    stores = [model(pairs, name, strength) for name, strength in strengths.items()]
    stores += [model(pairs, name, 0.0, random_init=True) for name in strengths]
    stores += [model(pairs, "s", 0.05, model="s-step100", seed=1), model(pairs, "s", 0.15, model="s-step1000", seed=2)]
    return measure_scaling(stores, pairs, ScalingSettings(steps={"s-step100": 100, "s-step1000": 1000, "s": 10000}))


def fit_of(table, head="best", series="trained", against="parameters"):
    rows = table[(table["kind"] == "fit") & (table["head"] == head) & (table["series"] == series)]
    (row,) = rows[rows["against"] == against].to_dict("records")
    return row


def test_only_planted_slopes_are_claimed(planted):
    assert tuple(planted.columns) == COLUMNS
    for head in ("best", "stages", "depth 0.5", "best-matched"):
        fit = fit_of(planted, head)
        assert fit["ci_low"] > 0 and fit["n_models"] == 4 and fit["value"] > 0.03, head
        assert (
            fit["verdict"] == "above" and "among these 4 models of 4 sizes trained accuracy rises" in fit["statement"]
        )
        contrast = fit_of(planted, head, "trained less random-init")
        assert contrast["verdict"] == "above" and contrast["n_models"] == 8 and contrast["n_sizes"] == 4
        null = fit_of(planted, head, "random-init")
        assert null["verdict"] == "not distinguished" and "is not measurably related" in null["statement"]
        assert contrast["value"] == pytest.approx(fit["value"] - null["value"])
    steps = fit_of(planted, "stages", "training of 1e+07 parameters", "steps")
    assert steps["n_models"] == 3 and steps["verdict"] == "above" and np.isnan(steps["sizes_low"])
    assert "3 steps of one run" in steps["statement"] and "over sizes" not in steps["statement"]


@pytest.mark.parametrize("with_steps", [True, False])
def test_a_further_seed_is_a_model_and_no_checkpoint(pairs, with_steps):
    """With and without the steps of that training."""
    stores = [
        model(pairs, "xs", 0.2),
        model(pairs, "s", 0.1, model="s-step100", seed=1),
        model(pairs, "s", 0.4),
        model(pairs, "s", 0.6, model="s-seed1", seed=2),
    ]
    steps = {"s-step100": 100, "s": 10000} | ({"s-seed1": 10000} if with_steps else {})
    table = measure_scaling(stores, pairs, ScalingSettings(steps=steps, depths=(1.0,)))
    best = table[(table["head"] == "best") & (table["kind"] == "fit")].set_index("against")
    assert (best.loc["parameters", "n_models"], best.loc["parameters", "n_sizes"]) == (3, 2)
    assert best.loc["steps", "n_models"] == 2
    points = table[(table["kind"] == "point") & (table["head"] == "best")].set_index("model")["value"]
    # The two trainings of a size are one point of the line.
    rise = points[["s", "s-seed1"]].mean() - points["xs"]
    assert best.loc["parameters", "value"] == pytest.approx(rise)
    drawn = {against: len(_points(table[table["head"] == "best"], against)) for against in ("parameters", "steps")}
    assert drawn == {"parameters": 3, "steps": 2}


def test_without_an_effect_of_size_no_slope_is_claimed(pairs):
    table = measure_scaling([model(pairs, name, 0.6) for name in SIZES], pairs)
    fits = table[(table["kind"] == "fit") & (table["against"] == "parameters") & (table["head"] != "stages")]
    assert (fits["verdict"] == "not distinguished").all()
    assert fits["statement"].str.contains("is not measurably related").all()


def test_a_slope_is_tested_on_pairs_as_a_weighted_sum(pairs):
    """Over prompts, the slope between two sizes is their paired difference."""
    stores = [model(pairs, "xs", 0.2), model(pairs, "s", 0.9)]
    table = measure_scaling(stores, pairs, ScalingSettings(depths=(1.0,)))
    fit = fit_of(table)
    points = table[(table["kind"] == "point") & (table["head"] == "best")]
    assert fit["value"] == pytest.approx(points["value"].iloc[1] - points["value"].iloc[0])
    assert fit["p_value"] < 1e-4 and fit["verdict"] == "above" and "two sizes say nothing" in fit["statement"]


def test_a_trend_is_ordinary_least_squares(planted):
    """Slope, intercept, residuals and the interval over sizes against SciPy."""
    points = planted[(planted["kind"] == "point") & (planted["head"] == "best") & (planted["control"] == "trained")]
    points = points[points["finished"].astype(bool)]
    assert sorted(points["model"]) == ["l", "m", "s", "xs"]
    x = np.log10(points["parameters"].to_numpy(dtype=float))
    expected = linregress(x, points["value"].to_numpy(dtype=float))
    fit = fit_of(planted)
    assert (fit["value"], fit["intercept"]) == pytest.approx((expected.slope, expected.intercept))
    reach = t.ppf(0.975, 2) * expected.stderr
    assert (fit["sizes_low"], fit["sizes_high"]) == pytest.approx((expected.slope - reach, expected.slope + reach))
    residuals = planted[
        (planted["kind"] == "residual")
        & (planted["head"] == "best")
        & (planted["series"] == "trained")
        & (planted["against"] == "parameters")
    ].set_index("parameters")["value"]
    points = points.set_index("parameters")
    x = pd.Series(x, points.index)
    by_hand = points["value"] - expected.intercept - expected.slope * x
    np.testing.assert_allclose(residuals.sort_index(), by_hand.sort_index().astype(float), atol=1e-12)
    assert fit["residual_deviation"] == pytest.approx(np.sqrt((by_hand**2).sum() / 2))


def test_heads_are_matched_in_depth_and_width(planted):
    points = planted[(planted["kind"] == "point") & (planted["control"] == "trained")]
    matched = points[points["head"] == "best-matched"]
    assert set(matched["channels"]) == {8}
    assert set(points.loc[points["head"] == "best", "channels"]) == {8, 10, 12, 14}
    half = points[points["head"] == "depth 0.5"].set_index("model")
    assert half.loc["xs", "block"] == 1 and half.loc["l", "block"] == 4
    assert (half["depth"] == 0.5).all()
    stages = points[points["head"] == "stages"]
    assert stages["blocks"].str.count(r"\+").isin([2, 3]).all() and set(stages["stage_source"]) == {"equal"}
    best = points[points["head"] == "best"].set_index("model")
    cells = planted[(planted["kind"] == "cell") & (planted["control"] == "trained")]
    for name, part in cells.groupby("model"):
        assert best.loc[name, "cv_accuracy"] == part["cv_accuracy"].max()


def test_two_sizes_give_no_interval_over_sizes(pairs):
    table = measure_scaling([model(pairs, "xs", 0.2), model(pairs, "l", 1.2)], pairs, ScalingSettings(depths=(1.0,)))
    fit = fit_of(table)
    assert np.isnan(fit["sizes_low"]) and np.isnan(fit["residual_deviation"]) and fit["ci_low"] > 0
    assert "two sizes say nothing of others" in fit["statement"]
    alone = measure_scaling([model(pairs, "xs", 0.2)], pairs)
    assert not (alone["kind"] == "fit").any()


def test_selecting_a_block_ignores_test_pairs(pairs):
    flipped = pairs.copy()
    test = flipped["split"] == "test"
    flipped.loc[test, "choice"] = 1 - flipped.loc[test, "choice"]
    tables = [measure_scaling([model(of, "xs", 0.4), model(of, "s", 0.4)], of) for of in (pairs, flipped)]
    points = [table[table["kind"] == "point"] for table in tables]
    for column in ("blocks", "cv_accuracy"):
        pd.testing.assert_series_equal(points[0][column], points[1][column])


def test_sizes_are_read_or_counted_by_name(pairs):
    store = model(pairs, "xs", 0.0)
    assert size_of(store) == (1e6, 3e9)
    old = PlantedStore(pairs, lambda *_: (0.0, 0.0), model="testbed-s", clip_tokens=22, t5_length=20)
    for name in ("parameters", "forward_flops", "config_hash"):
        del old.attributes[name]
    parameters, flops = size_of(old)
    assert 2e6 < parameters < 3e6 and 1e8 < flops < 1e9
    old.attributes["config_hash"] = "another"
    with pytest.raises(UserError, match="differs from the store's"):
        size_of(old)
    old.attributes["model"] = "my-model"
    with pytest.raises(UserError, match="does not record the size of its backbone"):
        size_of(old)


@pytest.mark.parametrize(
    ("changed", "settings", "message"),
    [
        ({}, {"steps": {"nobody": 5}}, "Steps are given for 'nobody', and no store has this name; there are s, xs"),
        ({}, {"steps": {"xs": 0}}, "Training steps are above 0"),
        ({}, {"depths": (0.0,)}, "above 0 and up to 1, got 0"),
        ({"prompts": "foreign"}, {}, "was not extracted with own prompts"),
    ],
)
def test_bad_settings_are_refused(pairs, changed, settings, message):
    with pytest.raises(UserError, match=message):
        measure_scaling(
            [model(pairs, "xs", 0.2), model(pairs, "s", 0.2, **changed)], pairs, ScalingSettings(**settings)
        )


def test_incomparable_stores_are_refused(pairs):
    with pytest.raises(UserError, match="no sigma 0.3"):
        measure_scaling([model(pairs, "xs", 0.2), model(pairs, "s", 0.2)], pairs, sites=Sites(sigmas=(0.3,)))
    other = PlantedStore(pairs, lambda *_: (0.0, 0.0), sigmas=(0.9,))
    with pytest.raises(UserError, match="share no stream, reduction and noise level"):
        measure_scaling([model(pairs, "xs", 0.2), other], pairs)
    with pytest.raises(UserError, match="holds the same weights as one before it"):
        measure_scaling([model(pairs, "xs", 0.2)] * 2, pairs)
    with pytest.raises(UserError, match="no store to measure"):
        measure_scaling([], pairs)


@pytest.mark.parametrize(
    ("model", "steps"), [("testbed-xs", STEPS), *CHECKPOINTS, ("sd35-large", np.nan), ("no-model", np.nan)]
)
def test_steps_come_from_the_card_beside_the_weights(model, steps, unchecked_shapes):
    store = SimpleNamespace(attributes={"model": model})
    assert training_steps(store) == pytest.approx(steps, nan_ok=True)


def test_families_have_trends_of_their_own(pairs):
    """One family gains with size, the other loses; the models of both together do neither."""
    strengths = {("A", "xs"): 0.3, ("A", "l"): 1.2, ("B", "s"): 1.2, ("B", "m"): 0.3}
    stores = [
        model(pairs, size, strength, model=f"{family}-{size}", pipeline=f"{family}Pipeline")
        for (family, size), strength in strengths.items()
    ]
    table = measure_scaling(stores, pairs)
    fits = table[(table["kind"] == "fit") & (table["head"] == "best") & (table["against"] == "parameters")]
    slopes = fits.set_index("series")["value"]
    assert set(slopes.index) == {"trained", "trained, APipeline", "trained, BPipeline"}
    assert slopes["trained, APipeline"] > 0.03 and slopes["trained, BPipeline"] < -0.03
    points = table[table["kind"] == "point"].set_index(["model", "head"])["value"]
    rise = (points["A-l", "best"] - points["A-xs", "best"]) / 3
    assert slopes["trained, APipeline"] == pytest.approx(rise)
    figure = figure_scaling(table)
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert labels[:2] == ["best block, A", "best block, B"]


def test_published_taps_are_heads(pairs):
    """The signal is in the blocks that one rule reads, and in none of the other's."""
    store = PlantedStore(
        pairs,
        lambda stream, sigma, block: (1.0, 1.0) if block in (3, 5, 7) else (0.0, 0.0),
        num_blocks=24,
        pipeline="XPipeline",
    )
    table = measure_scaling([store], pairs, ScalingSettings(taps=("dit-reward", "registers", "dina")))
    heads = table[table["kind"] == "point"].set_index("head")
    assert heads.loc["taps dit-reward", "blocks"] == "9+14+17+23"
    assert heads.loc["taps registers", "blocks"] == heads.loc["taps dina", "blocks"] == "3+7+11"
    assert heads.loc["taps registers", "value"] > 0.6 > heads.loc["taps dit-reward", "value"]
    assert heads.loc["taps registers", "channels"] == 3 * 8
    with pytest.raises(UserError, match="Unknown taps 'x'; known are dit-reward, dina, registers"):
        ScalingSettings(taps=("x",))
