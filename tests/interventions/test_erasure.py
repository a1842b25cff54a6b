"""Erasure: nothing linear is left, nothing more than needed is changed, and labels of other kinds stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from probing.interventions import fit_eraser
from probing.probes import LogisticProbe


def planted(rows, width, labels, seed):
    """Correlated features, some directions of which depend on the labels."""
    rng = np.random.default_rng(seed)
    z = rng.integers(0, 2, (rows, labels)).astype(float)
    mixing = rng.normal(size=(width, width))
    return rng.normal(size=(rows, width)) @ mixing + z @ rng.normal(size=(labels, width)) * 3 + 5, z


@given(width=st.integers(2, 12), labels=st.integers(1, 3), seed=st.integers(0, 999))
def test_no_covariance_with_the_labels_is_left_and_the_rank_is_theirs(width, labels, seed):
    x, z = planted(200, width, labels, seed)
    eraser = fit_eraser(x, z)
    erased = eraser.apply(x)
    covariance = (erased - erased.mean(0)).T @ (z - z.mean(0)) / len(x)
    assert np.abs(covariance).max() < 1e-9 * np.abs(x).max()
    assert np.linalg.matrix_rank(eraser.matrix) == min(width, labels)
    np.testing.assert_allclose(eraser.matrix @ eraser.matrix, eraser.matrix, atol=1e-8)
    np.testing.assert_allclose(erased.mean(0), x.mean(0), atol=1e-9)
    np.testing.assert_allclose(eraser.apply(erased), erased, atol=1e-8)


@given(seed=st.integers(0, 999))
def test_no_other_map_that_erases_changes_less(seed):
    """Beside every oblique projection along other directions onto the same kernel."""
    x, z = planted(300, 6, 1, seed)
    eraser = fit_eraser(x, z)
    centred = x - x.mean(0)
    covariance = centred.T @ (z - z.mean(0)) / len(x)
    least = np.mean((eraser.apply(x) - x) ** 2)
    rng = np.random.default_rng(seed)
    for _ in range(20):
        # x − a·b'x leaves no covariance iff b'·covariance is 1 and a is the covariance.
        b = rng.normal(size=6)
        b /= b @ covariance[:, 0]
        other = np.mean((np.outer(centred @ b, covariance[:, 0])) ** 2)
        assert least <= other * (1 + 1e-9)


def test_a_probe_trained_anew_reads_nothing_and_other_labels_are_left():
    x, z = planted(2000, 10, 2, 0)
    erased = fit_eraser(x, z[:, 0]).apply(x)
    before = LogisticRegression(C=np.inf).fit(x, z[:, 0])
    after = LogisticRegression(C=np.inf, tol=1e-8).fit(erased, z[:, 0])
    assert before.score(x, z[:, 0]) > 0.7
    # At the optimum of an unpenalised loss without covariance all coefficients are 0, which is the base rate.
    assert abs(after.decision_function(erased) - np.log(z[:, 0].mean() / (1 - z[:, 0].mean()))).max() < 1e-3
    assert LogisticRegression(C=np.inf).fit(erased, z[:, 1]).score(erased, z[:, 1]) > 0.7


def test_differences_of_pairs_lose_what_a_preference_probe_reads():
    rng = np.random.default_rng(1)
    items = rng.normal(size=(3000, 8)) @ rng.normal(size=(8, 8))
    first, second = items[::2], items[1::2]
    y = (rng.random(1500) < 1 / (1 + np.exp(-2 * (first - second) @ rng.normal(size=8)))).astype(float)
    eraser = fit_eraser(first - second, y)
    differences = eraser.apply(first) - eraser.apply(second)
    groups = np.arange(1500)
    assert LogisticProbe().fit(first - second, y, groups).cv_accuracy_ > 0.75
    assert LogisticProbe().fit(differences, y, groups).cv_accuracy_ < 0.56


def test_constant_channels_and_bad_input(unchecked_shapes):
    x, z = planted(100, 4, 1, 2)
    x[:, 2] = 7.0
    erased = fit_eraser(x, z).apply(x)
    np.testing.assert_allclose(erased[:, 2], 7.0)
    with pytest.raises(ValueError, match="Got 100 rows of features and 99 of labels"):
        fit_eraser(x, z[:99])
    x[0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        fit_eraser(x, z)
    # Labels that do not vary take nothing away.
    y = np.ones(50)
    np.testing.assert_allclose(fit_eraser(planted(50, 3, 1, 0)[0], y).matrix, 0, atol=1e-12)
