"""The ridge probe against scikit-learn and against plain refits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.linear_model import Ridge, RidgeCV

from probing.probes import RidgeProbe, grouped_folds

ALPHAS = (1e-4, 1e-2, 1.0)


def make_pairs(seed=0, pairs=200, channels=12):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(pairs, channels)) * np.logspace(-3, 3, channels)
    margins = X[:, 0] / 1e-3 - X[:, -1] / 1e3 + rng.normal(size=pairs)
    return X, (margins > 0).astype(float), rng.integers(0, pairs // 3, pairs)


@pytest.mark.parametrize("shape", [(200, 12), (60, 100)])
def test_single_pairs_are_scikit_learns_leave_one_out(shape):
    X, y, _ = make_pairs(1, *shape)
    probe = RidgeProbe(alphas=ALPHAS).fit(X, y)
    S, t = X / probe.scale_, 2 * y - 1
    expected = RidgeCV([alpha * len(y) for alpha in ALPHAS], fit_intercept=False, store_cv_results=True).fit(S, t)
    assert probe.alpha_ * len(y) == pytest.approx(expected.alpha_)
    np.testing.assert_allclose(probe.coef_ * probe.scale_, expected.coef_, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(probe.cv_scores_, expected.cv_results_.mean(axis=0), rtol=1e-6)


def out_of_fold(S, t, weights, alpha, fold_of):
    """Fit without each fold, by scikit-learn; the remaining rows keep their weights, so the penalty keeps its share."""
    predicted = np.zeros(len(t))
    for fold in np.unique(fold_of):
        out = fold_of == fold
        model = Ridge(alpha=alpha, fit_intercept=False, solver="cholesky" if len(t) > S.shape[1] else "svd")
        predicted[out] = S[out] @ model.fit(S[~out], t[~out], sample_weight=weights[~out]).coef_
    return predicted


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), folds=st.sampled_from([None, 3, 5]), wide=st.booleans())
def test_left_out_prompts_are_those_of_refits(seed, folds, wide):
    X, y, groups = make_pairs(seed, 40 if wide else 150, 60 if wide else 7)
    weights = np.random.default_rng(seed).uniform(0.1, 3.0, len(y))
    probe = RidgeProbe(alphas=ALPHAS, folds=folds).fit(X, y, groups, weights)
    u = weights / weights.sum()
    fold_of = groups if folds is None else grouped_folds(groups, folds)
    S, t = X / probe.scale_, 2 * y - 1
    for alpha, score in zip(ALPHAS, probe.cv_scores_, strict=True):
        predicted = out_of_fold(S, t, u, alpha, fold_of)
        assert score == pytest.approx(u @ (t - predicted) ** 2, rel=1e-5)
    predicted = out_of_fold(S, t, u, probe.alpha_, fold_of)
    assert probe.cv_accuracy_ == pytest.approx(np.average((predicted > 0) == (y > 0.5), weights=u), abs=1e-9)
    np.testing.assert_allclose(probe.cv_margins_, predicted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("target", ["scores", "ranks"])
def test_items_are_compared_within_their_prompts(target):
    """A prompt's mean has no effect: only differences within a prompt are preferences."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(60), 4)
    X = rng.normal(size=(240, 6)) + 50 * rng.normal(size=(60, 6))[groups]
    scores = X[:, 0] + 0.3 * rng.normal(size=240) + 100 * rng.normal(size=60)[groups]
    probe = RidgeProbe(alphas=(1e-3,), target=target).fit(X, scores, groups)
    centred = X - np.stack([X[groups == g].mean(0) for g in range(60)])[groups]
    if target == "ranks":
        t = np.concatenate([2 * (rankdata(scores[groups == g]) - 1) / 3 - 1 for g in range(60)])
    else:
        t = scores - np.array([scores[groups == g].mean() for g in range(60)])[groups]
    S = centred / np.sqrt((centred**2).mean(0))
    expected = Ridge(alpha=1e-3 * 240, fit_intercept=False).fit(S, t).coef_
    np.testing.assert_allclose(probe.coef_ * probe.scale_, expected, rtol=1e-6, atol=1e-9)
    assert probe.cv_accuracy_ > 0.9
    # A monotone change of the scores leaves ranks as they are.
    warped = RidgeProbe(alphas=(1e-3,), target="ranks").fit(X, np.cbrt(scores), groups)
    if target == "ranks":
        np.testing.assert_array_equal(probe.coef_, warped.coef_)


def test_swapping_sides_changes_nothing():
    X, y, groups = make_pairs(4)
    probe, swapped = (RidgeProbe().fit(sign * X, np.abs(y - (sign < 0)), groups) for sign in (1, -1))
    np.testing.assert_allclose(probe.coef_, swapped.coef_, rtol=1e-9)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({"target": "unknown"}, {}, "known are choices, scores, ranks"),
        ({"target": "scores"}, {"groups": None}, "give each item's prompt"),
        ({}, {"groups": np.zeros(200)}, "at least 2 to leave one out"),
        ({"folds": 5}, {"groups": np.arange(200) % 3}, "at least one per fold"),
        ({}, {"y": np.full(200, 3.0)}, "labels outside"),
        ({"alphas": ()}, {}, "numbers above 0"),
    ],
)
def test_bad_input_is_refused(options, change, message):
    X, y, groups = make_pairs(5)
    with pytest.raises(ValueError, match=message):
        RidgeProbe(**options).fit(**{"X": X, "y": y, "groups": groups, **change})


def test_weights_count_as_copies_do():
    X, y, groups = make_pairs(6)
    weights = np.random.default_rng(0).integers(0, 3, len(y))
    keep = np.isin(groups, groups[weights > 0])  # prompts with weight
    X, y, groups, weights = X[keep], y[keep], groups[keep], weights[keep]
    weighted = RidgeProbe(alphas=ALPHAS).fit(X, y, groups, weights)
    copied = RidgeProbe(alphas=ALPHAS).fit(*(np.repeat(values, weights, axis=0) for values in (X, y, groups)))
    np.testing.assert_allclose(weighted.coef_, copied.coef_, rtol=1e-6)
    np.testing.assert_allclose(weighted.cv_scores_, copied.cv_scores_, rtol=1e-6)
