"""Heads of matched size: the same blocks through fewer channels, or one block through more.

A probe on two blocks has twice the parameters of a probe on one. Whether it gains by the second block or by its width
is told by two controls: the two blocks reduced to the width of one, and the one widened to the width of two.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from sklearn.decomposition import PCA

REDUCED = ("pca", "random")
_LARGEST = 1e-12


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
        features: Of all items.
        training: Rows of the items that may be looked at.
        width: Channels to keep; fewer where there are fewer training items or channels.
        how: ``pca``: the first principal components of the standardised features. ``random``: products of the
            standardised features with normal random numbers, which keep distances but choose nothing.
        seed: Of the random numbers.

    Raises:
        ValueError: Unknown ``how``.
    """
    if how not in REDUCED:
        raise ValueError(f"Unknown reduction of width {how!r}; known are {', '.join(REDUCED)}.")
    standard = standardise(features, training)
    if how == "random":
        drawn = np.random.default_rng(seed).standard_normal((standard.shape[1], width)).astype(np.float32)
        return standard @ (drawn / np.sqrt(standard.shape[1], dtype=np.float32))
    width = min(width, standard.shape[1], len(training) - 1)
    pca = PCA(width, random_state=seed).fit(standard[training])
    return pca.transform(standard).astype(np.float32)


def widen(
    features: Float[np.ndarray, "item channel"], training: Int[np.ndarray, " training"], width: int, *, seed: int
) -> Float[np.ndarray, "item width"]:
    """Add channels that are functions of the ones there: rectified random sums of the standardised features.

    Random features of a block know nothing that the block does not, so what a probe on them gains it gains by width
    (Rahimi and Recht 2008).

    Args:
        features: Of all items.
        training: Rows of the items by which features are standardised.
        width: Channels in all, at least those there.
        seed: Of the random sums.
    """
    standard = standardise(features, training)
    more = width - standard.shape[1]
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((standard.shape[1], more)) / np.sqrt(standard.shape[1])
    shift = rng.standard_normal(more)
    return np.concatenate([standard, np.maximum(standard @ drawn + shift, 0)], axis=1).astype(np.float32)


def standardise(
    features: Float[np.ndarray, "item channel"], training: Int[np.ndarray, " training"]
) -> Float[np.ndarray, "item channel"]:
    """Give each channel mean 0 and standard deviation 1 over training items; a channel that never varies stays 0."""
    seen = features[training].astype(np.float64)
    mean, spread = seen.mean(axis=0), seen.std(axis=0)
    spread = np.where(spread > _LARGEST * np.abs(mean).max(initial=1.0), spread, np.inf)
    return ((features - mean) / spread).astype(np.float32)
