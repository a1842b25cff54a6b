"""Wilson's interval of a share, for independent and dependent values."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from probing.testbed.rates import format_interval, rate


@pytest.mark.parametrize(("right", "n"), [(0, 20), (1, 20), (10, 20), (400, 400), (399, 400)])
def test_independent_values_get_wilsons_interval(right, n):
    share = rate(np.arange(n) < right)
    assert (share.estimate, share.n) == (right / n, n)
    np.testing.assert_allclose((share.low, share.high), proportion_confint(right, n, method="wilson"), atol=1e-12)


def test_copies_do_not_narrow_the_interval():
    values = np.random.default_rng(0).random(200) < 0.9
    once, often = rate(values), rate(np.repeat(values, 5), np.repeat(np.arange(200), 5))
    assert (once.estimate, often.n) == (often.estimate, 1000)
    np.testing.assert_allclose((often.low, often.high), (once.low, once.high), atol=2e-4)
    all_right = rate(np.ones(1000), np.repeat(np.arange(200), 5))
    np.testing.assert_allclose(all_right.low, rate(np.ones(200)).low)


def test_interval_covers():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        chance = np.repeat(rng.beta(20, 2, size=60), 4)
        share = rate(rng.random(240) < chance, np.repeat(np.arange(60), 4))
        covered += share.low <= 20 / 22 <= share.high
    assert 0.93 <= covered / 1000 <= 0.98


def test_no_values_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        rate(np.array([]))


def test_intervals_are_formatted_in_percent():
    row = {"accuracy": 0.5, "ci_low": 0.25, "ci_high": 1.0}
    assert format_interval(row) == "50.0 [25.0, 100.0]"
    assert format_interval(row, 0, "%") == "50% [25%, 100%]"
