"""Heads of matched size: against NumPy's decomposition, and blind to test items."""

from __future__ import annotations

import numpy as np
import pytest

from probing.analysis.width import reduce_width, standardise, widen

TRAINING = np.arange(60)


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(100, 4)) @ rng.normal(size=(4, 12)) + 0.1 * rng.normal(size=(100, 12))
    mixed[:, 5] = 3.0
    return (mixed * np.logspace(-2, 3, 12) + 7).astype(np.float32)


def test_principal_components_are_those_of_the_singular_value_decomposition(features):
    found = reduce_width(features, TRAINING, 4, how="pca", seed=0)
    standard = standardise(features, TRAINING).astype(np.float64)
    seen = standard[TRAINING] - standard[TRAINING].mean(axis=0)
    axes = np.linalg.svd(seen, full_matrices=False)[2][:4]
    expected = (standard - standard[TRAINING].mean(axis=0)) @ axes.T
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-3)


@pytest.mark.parametrize("how", ["pca", "random"])
def test_test_items_move_nothing_of_training_items(features, how):
    spoilt = features.copy()
    spoilt[60:] = np.random.default_rng(1).normal(size=(40, 12)) * 50
    once, again = (reduce_width(f, TRAINING, 3, how=how, seed=0)[:60] for f in (features, spoilt))
    np.testing.assert_array_equal(once, again)
    once, again = (widen(f, TRAINING, 20, seed=0)[:60] for f in (features, spoilt))
    np.testing.assert_array_equal(once, again)


def test_a_random_projection_keeps_distances(features):
    standard = standardise(features, TRAINING)
    near = reduce_width(features, TRAINING, 2000, how="random", seed=0) * np.sqrt(12 / 2000)
    distances = [np.linalg.norm(f[:30, None] - f[None, 30:60], axis=2).ravel() for f in (standard, near)]
    np.testing.assert_allclose(distances[1], distances[0], rtol=0.15)
    other = reduce_width(features, TRAINING, 3, how="random", seed=1)
    assert np.abs(other - reduce_width(features, TRAINING, 3, how="random", seed=0)).max() > 0.1


def test_widening_keeps_what_is_there_and_adds_rectified_sums_of_it(features):
    wide = widen(features, TRAINING, 30, seed=0)
    assert wide.shape == (100, 30) and wide.dtype == np.float32
    np.testing.assert_array_equal(wide[:, :12], standardise(features, TRAINING))
    assert (wide[:, 12:] >= 0).all() and (wide[:, 12:] > 0).any(axis=0).mean() > 0.9
    # They are functions of the block: equal items stay equal.
    twice = widen(np.concatenate([features, features]), TRAINING, 30, seed=0)
    np.testing.assert_array_equal(twice[:100], twice[100:])


def test_a_channel_that_never_varies_is_zero(features):
    assert (standardise(features, TRAINING)[:, 5] == 0).all()
    seen = standardise(features, TRAINING)[TRAINING]
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.delete(seen.std(axis=0), 5), 1, atol=1e-4)


def test_no_more_components_than_training_items_and_known_names(features):
    assert reduce_width(features, TRAINING[:4], 10, how="pca", seed=0).shape == (100, 3)
    with pytest.raises(ValueError, match="Unknown reduction of width 'ica'; known are pca, random"):
        reduce_width(features, TRAINING, 3, how="ica", seed=0)
