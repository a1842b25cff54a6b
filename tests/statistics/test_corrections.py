"""Holm's correction against a hand-worked case, and its error rate by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from probing.statistics import holm


def test_a_hand_worked_case():
    # Sorted 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1 gives 0.02, 0.03, 0.06, 0.04, and 0.04 is raised to 0.06.
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1.0, 1.0])
    np.testing.assert_allclose(holm(np.array([0.2])), [0.2])
    assert holm(np.array([])).shape == (0,)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_family_error_rate_is_at_most_the_level(correlation):
    rng = np.random.default_rng(0)
    shared, single = rng.normal(size=(4000, 1)), rng.normal(size=(4000, 6))
    z = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * single
    p = 2 * stats.norm.sf(np.abs(z))
    family = np.mean([(holm(row) <= 0.05).any() for row in p])
    assert family <= 0.05 + 0.01
    assert np.mean((p <= 0.05).any(1)) > 0.1
    if correlation == 0:
        assert family >= 0.04


@pytest.mark.parametrize("p", [[1.2], [-0.1], [0.5, np.nan]])
def test_bad_input_is_refused(p):
    with pytest.raises(ValueError, match="one outside"):
        holm(np.array(p))
