"""The floors against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from probing.probes import MeanDifferenceProbe, PrincipalDirectionProbe


def make_pairs(seed=0, pairs=400, channels=10):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(pairs, channels)) * np.logspace(-2, 2, channels)
    y = (rng.random(pairs) < expit(2 * X[:, 0] / X[:, 0].std())).astype(float)
    return X, y, np.arange(pairs) // 2


def test_mean_difference_is_chosen_less_rejected():
    X, y, groups = make_pairs()
    probe = MeanDifferenceProbe().fit(X, y, groups)
    chosen_less_rejected = np.where(y[:, None] == 1, X, -X).mean(0)
    np.testing.assert_allclose(probe.coef_, chosen_less_rejected / (X**2).mean(0))
    assert 0.7 < probe.cv_accuracy_ < 0.95


def test_ties_do_not_move_the_mean():
    X, y, groups = make_pairs()
    tied = np.concatenate([y, np.full(len(y), 0.5)])
    both = MeanDifferenceProbe().fit(np.concatenate([X, X]), tied, np.concatenate([groups, groups + 1000]))
    alone = MeanDifferenceProbe().fit(X, y, groups)
    np.testing.assert_allclose(2 * both.coef_, alone.coef_)


def test_the_principal_direction_is_the_first_singular_vector_with_the_choices_sign():
    rng = np.random.default_rng(1)
    shared = rng.normal(size=400)
    X = shared[:, None] * np.array([1.0, -1.0, 1.0, 0.0]) + 0.5 * rng.normal(size=(400, 4))
    y = (shared < 0).astype(float)
    probe = PrincipalDirectionProbe().fit(X, y, np.arange(400))
    S = X / np.sqrt((X**2).mean(0))
    first = np.linalg.svd(S)[2][0]
    direction = probe.coef_ * probe.scale_
    assert abs(direction @ first) == pytest.approx(1.0)
    assert direction[0] < 0 < direction[1]
    assert probe.cv_accuracy_ > 0.85


def test_weights_are_copies():
    X, y, groups = make_pairs(2)
    weights = np.random.default_rng(0).integers(0, 3, len(y))
    for kind in (MeanDifferenceProbe, PrincipalDirectionProbe):
        weighted = kind().fit(X, y, groups, weights)
        copied = kind().fit(*(np.repeat(values, weights, axis=0) for values in (X, y, groups)))
        np.testing.assert_allclose(weighted.coef_, copied.coef_, rtol=1e-6)
