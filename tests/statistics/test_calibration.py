"""Bits, calibration and temperature against closed forms and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import log_loss

from probing.statistics import fit_temperature, log2_losses, reliability, usable_information


def margins_and_choices(count=40_000, scale=1.5, seed=0):
    rng = np.random.default_rng(seed)
    margins = scale * rng.normal(size=count)
    return margins, (rng.random(count) < expit(margins)).astype(float)


def test_losses_are_scikit_learns_in_bits():
    margins, choices = margins_and_choices(500)
    assert log2_losses(margins, choices).mean() == pytest.approx(log_loss(choices, expit(margins)) / np.log(2))
    assert log2_losses(np.array([1e6, -1e6]), np.array([1.0, 0.0])).tolist() == [0.0, 0.0]


def test_information_of_true_margins_equals_capacity():
    """One bit less the mean entropy of the answers."""
    margins, choices = margins_and_choices()
    p = expit(margins)
    entropy = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    assert usable_information(margins, choices).mean() == pytest.approx(1 - entropy.mean(), abs=0.01)
    assert usable_information(np.zeros(3), np.array([1.0, 0.0, 0.5])).tolist()[:2] == [0.0, 0.0]
    assert np.isnan(usable_information(np.zeros(3), np.array([1.0, 0.0, 0.5]))[2])


def test_true_margins_are_calibrated_and_stretched_ones_are_not():
    margins, choices = margins_and_choices()
    assert reliability(margins, choices).error < 0.01
    sure = reliability(4 * margins, choices)
    assert sure.error > 0.1 and (sure.confidence >= sure.accuracy - 0.02).all()
    assert sure.pairs.sum() == len(margins)


def test_the_error_is_the_weighted_gap_by_hand():
    # Margins of log 3 are 75%: three of four right; margins of −log 9 are 90%.
    margins = np.array([np.log(3)] * 4 + [-np.log(9)] * 2)
    choices = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 1.0])
    result = reliability(margins, choices, bins=2)
    # Bins of three: (75%, right 3 of 3), then (75%, wrong), (90%, right), (90%, wrong).
    assert result.confidence == pytest.approx([0.75, (0.75 + 0.9 + 0.9) / 3])
    assert result.accuracy == pytest.approx([1.0, 1 / 3])
    assert result.error == pytest.approx((0.25 + (0.85 - 1 / 3)) / 2)


@pytest.mark.parametrize("stretch", [0.25, 1.0, 5.0])
def test_temperature_undoes_a_stretch(stretch):
    margins, choices = margins_and_choices()
    temperature = fit_temperature(stretch * margins, choices)
    assert temperature == pytest.approx(stretch, rel=0.06)
    corrected = reliability(stretch * margins / temperature, choices)
    assert corrected.error < 0.012


def test_temperature_is_at_the_optimum():
    margins, choices = margins_and_choices(300, seed=1)
    temperature = fit_temperature(margins, choices)
    grid = np.exp(np.linspace(-3, 3, 2001))
    losses = [log2_losses(margins / t, choices).mean() for t in grid]
    assert temperature == pytest.approx(grid[int(np.argmin(losses))], rel=0.005)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="one margin and one choice"):
        log2_losses(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="finite"):
        log2_losses(np.array([np.nan]), np.ones(1))
    with pytest.raises(ValueError, match="no untied pair"):
        reliability(np.ones(2), np.full(2, 0.5))
