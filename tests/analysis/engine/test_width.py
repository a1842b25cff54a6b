"""Heads of matched size: against NumPy's decomposition, and independent of test items."""

from __future__ import annotations

import numpy as np
import pytest

from probing.analysis.engine.width import reduce_width, standardise, widen

TRAINING = np.arange(60)


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(100, 4)) @ rng.normal(size=(4, 12)) + 0.1 * rng.normal(size=(100, 12))
    mixed[:, 5] = 3.0
    return (mixed * np.logspace(-2, 3, 12) + 7).astype(np.float32)


def test_principal_components_match_the_singular_value_decomposition(features):
    reduced = reduce_width(features, TRAINING, 4, how="pca", seed=0)
    standard = standardise(features, TRAINING).astype(np.float64)
    centred = standard[TRAINING] - standard[TRAINING].mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:4]
    expected = (standard - standard[TRAINING].mean(axis=0)) @ axes.T
    np.testing.assert_allclose(np.abs(reduced), np.abs(expected), atol=1e-3)


@pytest.mark.parametrize("how", ["pca", "random"])
def test_test_items_do_not_change_training_items(features, how):
    altered = features.copy()
    altered[60:] = np.random.default_rng(1).normal(size=(40, 12)) * 50
    once, again = (reduce_width(f, TRAINING, 3, how=how, seed=0)[:60] for f in (features, altered))
    np.testing.assert_array_equal(once, again)
    once, again = (widen(f, TRAINING, 20, seed=0)[:60] for f in (features, altered))
    np.testing.assert_array_equal(once, again)


def test_a_random_projection_keeps_distances(features):
    standard = standardise(features, TRAINING)
    near = reduce_width(features, TRAINING, 2000, how="random", seed=0) * np.sqrt(12 / 2000)
    distances = [np.linalg.norm(f[:30, None] - f[None, 30:60], axis=2).ravel() for f in (standard, near)]
    np.testing.assert_allclose(distances[1], distances[0], rtol=0.15)
    other = reduce_width(features, TRAINING, 3, how="random", seed=1)
    assert np.abs(other - reduce_width(features, TRAINING, 3, how="random", seed=0)).max() > 0.1


def test_widening_adds_rectified_sums(features):
    wide = widen(features, TRAINING, 30, seed=0)
    assert wide.shape == (100, 30) and wide.dtype == np.float32
    np.testing.assert_array_equal(wide[:, :12], standardise(features, TRAINING))
    assert (wide[:, 12:] >= 0).all() and (wide[:, 12:] > 0).any(axis=0).mean() > 0.9
    # Random features depend on the item alone.
    twice = widen(np.concatenate([features, features]), TRAINING, 30, seed=0)
    np.testing.assert_array_equal(twice[:100], twice[100:])


def test_a_channel_that_never_varies_is_zero(features):
    assert (standardise(features, TRAINING)[:, 5] == 0).all()
    training = standardise(features, TRAINING)[TRAINING]
    np.testing.assert_allclose(training.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.delete(training.std(axis=0), 5), 1, atol=1e-4)


def test_components_are_limited_and_unknown_names_refused(features):
    assert reduce_width(features, TRAINING[:4], 10, how="pca", seed=0).shape == (100, 3)
    with pytest.raises(ValueError, match="Unknown reduction of width 'ica'; choose pca or random"):
        reduce_width(features, TRAINING, 3, how="ica", seed=0)
