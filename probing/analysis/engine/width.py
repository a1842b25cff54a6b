"""Heads of matched size: several blocks reduced to the width of one, or one block widened to that of several.

A probe on two blocks has twice the parameters of a probe on one. These controls separate the gain by the second block
from the gain by width.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from sklearn.decomposition import PCA

REDUCED = ("pca", "random")
_CONSTANT = 1e-12
"""Standard deviation, relative to the largest mean, up to which a channel is constant."""


def reduce_width(
    features: Float[np.ndarray, "item channel"],
    training: Int[np.ndarray, " training"],
    width: int,
    *,
    how: str,
    seed: int,
) -> Float[np.ndarray, "item width"]:
    """Map features to fewer channels, fitted to training items without their choices.

    Args:
        features: Features of all items.
        training: Rows of the training items.
        width: Channels to keep; fewer if there are fewer training items or channels.
        how: ``pca``: the first principal components of the standardised features. ``random``: a random normal
            projection of the standardised features.
        seed: Seed of the random numbers.

    Raises:
        ValueError: Unknown ``how``.
    """
    if how not in REDUCED:
        raise ValueError(f"Unknown reduction of width {how!r}; choose {' or '.join(REDUCED)}.")
    standard = standardise(features, training)
    if how == "random":
        projection = np.random.default_rng(seed).standard_normal((standard.shape[1], width)).astype(np.float32)
        return standard @ (projection / np.sqrt(standard.shape[1], dtype=np.float32))
    width = min(width, standard.shape[1], len(training) - 1)
    pca = PCA(width, random_state=seed).fit(standard[training])
    return pca.transform(standard).astype(np.float32)


def widen(
    features: Float[np.ndarray, "item channel"], training: Int[np.ndarray, " training"], width: int, *, seed: int
) -> Float[np.ndarray, "item width"]:
    """Add rectified random sums of the standardised features (random features, Rahimi and Recht 2008).

    They carry no information beyond the block's, so a gain of a probe on them is a gain by width.

    Args:
        features: Features of all items.
        training: Rows of the training items, which determine the standardisation.
        width: Number of channels of the result, at least that of the features.
        seed: Seed of the random sums.
    """
    standard = standardise(features, training)
    more = width - standard.shape[1]
    rng = np.random.default_rng(seed)
    projection = rng.standard_normal((standard.shape[1], more)) / np.sqrt(standard.shape[1])
    shift = rng.standard_normal(more)
    return np.concatenate([standard, np.maximum(standard @ projection + shift, 0)], axis=1).astype(np.float32)


def standardise(
    features: Float[np.ndarray, "item channel"], training: Int[np.ndarray, " training"]
) -> Float[np.ndarray, "item channel"]:
    """Give each channel mean 0 and standard deviation 1 over training items; a constant channel becomes 0."""
    values = features[training].astype(np.float64)
    mean, spread = values.mean(axis=0), values.std(axis=0)
    spread = np.where(spread > _CONSTANT * np.abs(mean).max(initial=1.0), spread, np.inf)
    return ((features - mean) / spread).astype(np.float32)
