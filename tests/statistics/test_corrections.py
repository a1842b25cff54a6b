"""Corrections against hand-worked cases and SciPy, and their promises by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from probing.statistics import benjamini_hochberg, holm


def test_a_hand_worked_case():
    # Sorted 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1 gives 0.02, 0.03, 0.06, 0.04, and 0.04 is raised to 0.06.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1.0, 1.0])
    np.testing.assert_allclose(holm([0.2]), [0.2])
    assert holm([]).shape == (0,)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_familys_error_is_bounded(correlation):
    rng = np.random.default_rng(0)
    shared, own = rng.normal(size=(4000, 1)), rng.normal(size=(4000, 6))
    z = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    p = 2 * stats.norm.sf(np.abs(z))
    family = np.mean([(holm(row) <= 0.05).any() for row in p])
    assert family <= 0.05 + 0.01
    assert np.mean((p <= 0.05).any(1)) > 0.1
    if correlation == 0:
        assert family >= 0.04


def test_benjamini_hochberg_is_scipys():
    p = np.random.default_rng(1).random(50) ** 2
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p))
    assert benjamini_hochberg([]).shape == (0,)


def test_false_findings_are_few_among_all():
    rng = np.random.default_rng(2)
    z = rng.normal(size=(3000, 20)) + np.where(np.arange(20) < 8, 3.0, 0.0)
    found = np.array([benjamini_hochberg(row) <= 0.1 for row in 2 * stats.norm.sf(np.abs(z))])
    false = found[:, 8:].sum(1) / np.maximum(found.sum(1), 1)
    # Its bound is the level times the share of true nulls.
    assert false.mean() == pytest.approx(0.1 * 12 / 20, abs=0.01)


@pytest.mark.parametrize("correct", [holm, benjamini_hochberg])
@pytest.mark.parametrize("p", [[1.2], [-0.1], [0.5, np.nan]])
def test_bad_input_is_refused(p, correct):
    with pytest.raises(ValueError, match="one outside"):
        correct(p)
