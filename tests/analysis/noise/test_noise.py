"""Noise: the planted level and draw noise are measured, and nothing without them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probing.analysis.engine import Fit, Site, Sites, facets_of
from probing.analysis.noise import measure_noise
from probing.analysis.noise.experiment import COLUMNS
from probing.analysis.noise.redraws import variance_ratios
from probing.errors import UserError
from probing.probes import LogisticProbe
from probing.statistics import fit_temperature, outcomes
from tests.fakes.planted_store import PlantedStore, planted_pairs

SIGMAS = (0.1, 0.5, 0.9)
BEST = {0: 0.1, 1: 0.5, 2: 0.9}


def ridge(stream, sigma, block):
    """Each block has another best level."""
    return (1.5, 1.5) if sigma == BEST[block] else (0.3, 0.3)


def halves(stream, sigma, block):
    """One half of the reward at each of two levels, nothing at the third."""
    return {0.1: (2.0, 0.0), 0.5: (0.0, 2.0), 0.9: (0.0, 0.0)}[sigma]


@pytest.fixture(scope="module")
def pairs():
    return planted_pairs(test=400)


def make(pairs, plant, **changed):
    return PlantedStore(pairs, plant, num_blocks=3, sigmas=SIGMAS, **changed)


@pytest.fixture(scope="module")
def levels(pairs):
    return measure_noise([make(pairs, ridge)], pairs)


@pytest.fixture(scope="module")
def draws(pairs):
    plant = {"plant": lambda *_: (1.0, 1.0), "noise": 2.0}
    stores = [make(pairs, draw=draw, **plant) for draw in range(4)]
    return measure_noise([*stores, make(pairs, draw=0, shared=True, **plant)], pairs)


def test_the_best_level_is_the_planted_one(levels):
    assert tuple(levels.columns) == COLUMNS
    ridge_of = levels[levels["best_sigma"] == True]  # noqa: E712  None elsewhere
    assert dict(zip(ridge_of["block"], ridge_of["sigma"], strict=True)) == BEST
    assert (ridge_of["agreement"] > 0.95).all()
    cells = levels.query("kind == 'cell'")
    assert len(cells) == 9
    np.testing.assert_allclose(cells.groupby("block")["agreement"].sum(), 1)
    assert not levels["kind"].isin(["draws", "redraw", "pairing"]).any()


def test_levels_gain_together_only_with_different_signals(pairs, levels):
    together = measure_noise([make(pairs, halves)], pairs).query("kind == 'sigmas'")
    assert set(together["method"]) == {"rewards", "features"} and together["sigma"].isna().all()
    assert (together["gain"] > 0.01).all() and (together["gain_low"] > 0).sum() >= 4
    assert (together["gain_p_value_holm"] <= 0.05).any()
    features = levels.query("kind == 'sigmas' and method == 'features'")
    assert (features["gain"].abs() < 0.05).all()


def test_without_a_signal_no_level_is_best(pairs):
    table = measure_noise([make(pairs, lambda *_: (0.0, 0.0))], pairs)
    cells = table.query("kind == 'cell'")
    assert cells["value"].mean() == pytest.approx(0.5, abs=0.03)
    assert (cells["agreement"] < 0.95).all()
    together = table.query("kind == 'sigmas'")
    assert (together["gain_p_value_holm"] > 0.05).all()


def test_variance_components_are_the_planted_ones(pairs, draws):
    """The noise of a margin follows from the weights and the noise of the channels."""
    redraws = draws.query("kind == 'redraw' and pair_noise == 'independent'")
    for metric in ("reward_ratio", "margin_ratio", "flip_rate"):
        by_sigma = redraws[redraws["metric"] == metric].groupby("sigma")["value"].mean()
        assert by_sigma.is_monotonic_increasing and by_sigma.iloc[0] < by_sigma.iloc[-1] / 4, metric
    # Features are reward parts (variance 2 each, weight 1) and noise of variance 1, plus drawn noise of (2σ)².
    store = make(pairs, lambda *_: (1.0, 1.0), noise=2.0)
    features = store.read("image", "mean", 0.9, 0)
    assert np.var(features[:, 2:]) == pytest.approx(1 + (2 * 0.9) ** 2, rel=0.1)
    expected = (2 * 0.9) ** 2 / (1 + 2)
    row = redraws[(redraws["metric"] == "reward_ratio") & (redraws["sigma"] == 0.9)]
    assert (row["ci_low"] < expected * 1.25).all() and (row["ci_high"] > expected * 0.8).all()
    assert (redraws["draws"] == 4).all()


def test_ratios_match_a_one_way_analysis_of_variance(pairs):
    """Compare with the mean squares of a one-way analysis of variance."""
    store = make(pairs, ridge)
    (facet,) = facets_of(store, pairs)
    rng = np.random.default_rng(0)
    draws, count = 3, len(facet.test.choices)
    rewards = rng.normal(size=(1, 2, count)) * 2 + rng.normal(size=(draws, 2, count)) * 0.7
    fit = Fit(
        cell="",
        cv_accuracy=0.5,
        temperature=1.0,
        alpha=np.nan,
        scaling="standard",
        compression=np.nan,
        channels=1,
        choices=facet.test.choices,
        margins=rewards[0, 0][:, None],
        train_margins=np.empty(0),
        scored=rewards,
        shuffled=np.empty((len(facet.test.choices), 0)),
    )
    ratios = variance_ratios({Site("image", "mean", 0.1, 0): fit}, facet, 0).set_index("metric")["value"]
    flat = rewards.reshape(draws, -1)
    within = flat.var(axis=0, ddof=1).mean()
    between = (draws * flat.mean(axis=0).var(ddof=0) - within) / draws
    assert ratios["reward_ratio"] == pytest.approx(within / between, rel=1e-9)
    assert ratios["reward_ratio"] == pytest.approx(0.7**2 / 4, rel=0.15)
    margins = rewards[:, 0] - rewards[:, 1]
    pairs_of = [(a, b) for a in range(draws) for b in range(a)]
    flips = np.mean([(margins[a] > 0) != (margins[b] > 0) for a, b in pairs_of])
    assert ratios["flip_rate"] == pytest.approx(flips)


def test_draws_and_shared_noise_gain_at_high_noise(draws):
    together = draws.query("kind == 'draws' and draws == 4 and sigma == 0.9")
    assert set(together["method"]) == {"rewards", "features"} and (together["gain_low"] > 0).all()
    quiet = draws.query("kind == 'draws' and sigma == 0.1")
    assert (quiet["gain"].abs() < 0.03).all()
    pairing = draws.query("kind == 'pairing' and sigma == 0.9")
    assert len(pairing) == 3 and (pairing["gain_low"] > 0).all() and set(pairing["pair_noise"]) == {"shared"}


def test_an_ensemble_is_the_mean_of_log_odds(pairs):
    store = make(pairs, halves)
    (facet,) = facets_of(store, pairs)
    log_odds = []
    for sigma in SIGMAS:
        features = store.read("image", "mean", sigma, 1).astype(float)
        probe = LogisticProbe().fit(facet.train.differences(features), facet.train.choices, facet.train.prompts)
        temperature = fit_temperature(probe.cv_margins_, facet.train.choices)
        log_odds.append(probe.decision_function(facet.test.differences(features)) / temperature)
    table = measure_noise([store], pairs, sites=Sites(blocks=(1,)))
    value = table.query("kind == 'sigmas' and method == 'rewards'")["value"].item()
    assert value == pytest.approx(outcomes(np.mean(log_odds, axis=0), facet.test.choices).mean())


def test_test_choices_change_no_selection(pairs, levels):
    flipped = pairs.copy()
    test = flipped["split"] == "test"
    flipped.loc[test, "choice"] = 1 - flipped.loc[test, "choice"]
    again = measure_noise([make(flipped, ridge)], flipped)
    for column in ("best_sigma", "agreement", "cv_accuracy"):
        pd.testing.assert_series_equal(again[column], levels[column])


def test_incomparable_stores_are_refused(pairs):
    one = make(pairs, ridge, revision="a")
    with pytest.raises(UserError, match=r"hold the same noise \(seed 0, independent\)"):
        measure_noise([one, make(pairs, ridge)], pairs)
    with pytest.raises(UserError, match="in more than noise: revision is 'a' and 'b'"):
        measure_noise([one, make(pairs, ridge, draw=1, revision="b")], pairs)
    with pytest.raises(UserError, match="lacks streams, noise levels or blocks"):
        measure_noise([one, PlantedStore(pairs, ridge, num_blocks=2, sigmas=SIGMAS, draw=1, config_hash="3x8")], pairs)
    with pytest.raises(UserError, match="no store to measure"):
        measure_noise([], pairs)
