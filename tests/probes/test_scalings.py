"""Scalings against their definitions, and the probes under each scaling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from probing.probes import SCALINGS, LogisticProbe, RidgeProbe
from probing.probes._scalings import find_scaling


def make_pairs(seed=0, pairs=500, channels=8):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(pairs, channels)) @ rng.normal(size=(channels, channels))
    y = (rng.random(pairs) < expit(X[:, 0])).astype(float)
    return X, y, np.arange(pairs) // 2


@pytest.mark.parametrize("shape", [(500, 8), (30, 50)])
@pytest.mark.parametrize("name", SCALINGS)
def test_converted_coefficients_give_the_same_margins(name, shape):
    X, _, _ = make_pairs(1, *shape)
    scaling = find_scaling(name, X, np.full(len(X), 1 / len(X)))
    mapped = scaling.apply(X)
    w = np.random.default_rng(2).normal(size=mapped.shape[1])
    np.testing.assert_allclose(X @ scaling.back(w), mapped @ w, rtol=1e-8, atol=1e-8)


def test_whitened_differences_are_uncorrelated():
    X, _, _ = make_pairs(2)
    mapped = find_scaling("whiten", X, np.full(500, 1 / 500)).apply(X)
    gram = mapped.T @ mapped / 500
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-10)
    # Shrinkage takes less than a hundredth from directions that are not tiny.
    assert np.median(np.diag(gram)) > 0.98


def test_a_massive_channel_is_masked_and_no_other():
    X, y, groups = make_pairs(3)
    X[:, 5] *= 1000
    scaling = find_scaling("mask-massive", X, np.full(500, 1 / 500))
    assert np.isinf(scaling.scale).tolist() == [channel == 5 for channel in range(8)]
    probe = LogisticProbe(scaling="mask-massive").fit(X, y, groups)
    assert probe.coef_[5] == 0 and (probe.coef_[:5] != 0).all()


@pytest.mark.parametrize("name", SCALINGS)
def test_the_optimum_is_scikit_learns_under_every_scaling(name):
    X, y, groups = make_pairs(4)
    probe = LogisticProbe(alphas=(1e-2,), scaling=name).fit(X, y, groups)
    mapped = find_scaling(name, X, np.full(500, 1 / 500)).apply(X)
    expected = LogisticRegression(C=1 / (500 * 1e-2), fit_intercept=False, tol=1e-12, max_iter=20_000).fit(mapped, y)
    np.testing.assert_allclose(X @ probe.coef_, mapped @ expected.coef_[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [LogisticProbe, RidgeProbe])
def test_auto_chooses_the_lowest_out_of_fold_loss(kind):
    X, y, groups = make_pairs(5)
    X[:, 3] *= 3000
    each = {name: kind(scaling=name).fit(X, y, groups) for name in SCALINGS}
    auto = kind(scaling="auto").fit(X, y, groups)
    best = min(each, key=lambda name: each[name].cv_scores_.min())
    assert auto.scaling_ == best
    np.testing.assert_array_equal(auto.coef_, each[best].coef_)


def test_an_unknown_scaling_is_refused():
    X, y, groups = make_pairs(6)
    with pytest.raises(ValueError, match="known are raw, standard, whiten, mask-massive, and auto"):
        LogisticProbe(scaling="unknown").fit(X, y, groups)
