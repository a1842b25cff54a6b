"""What all probes share: how pairs come in, and how a linear reward scores items."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

_ROWS_AT_ONCE = 256


class Training(NamedTuple):
    """Checked training data.

    Attributes:
        X: (row, channel), float64.
        y: (row,).
        groups: Prompt group of each row, (row,).
        weights: (row,), summing to 1.
    """

    X: Float[np.ndarray, "row channel"]
    y: Float[np.ndarray, " row"]
    groups: np.ndarray
    weights: Float[np.ndarray, " row"]


class LinearProbe(BaseEstimator):
    """A reward that is a weighted sum of features, x'coef_; the margin of a pair is that of the difference.

    Attributes:
        coef_: (channel,), for features in their own units.
        n_features_in_: Channels.
    """

    coef_: Float[np.ndarray, " channel"]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def decision_function(self, X: Float[np.ndarray, "row channel"]) -> Float[np.ndarray, " row"]:
        """Give the rewards of items, or the margins of pairs when X holds differences."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return X @ self.coef_


def check_training(
    probe: BaseEstimator, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None, sample_weight: ArrayLike | None
) -> Training:
    """Check what a linear probe is fitted to; a row without a group is a group of its own.

    Raises:
        ValueError: Shapes that do not fit, values that are not finite, weights that are negative or all 0.
    """
    checked, y = validate_data(probe, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
    y = np.asarray(y, dtype=np.float64)
    groups = np.arange(len(y)) if groups is None else np.asarray(groups)
    weights = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    for name, array in (("groups", groups), ("sample_weight", weights)):
        if array.shape != y.shape:
            raise ValueError(f"Got {name} of shape {array.shape}, expected {y.shape}; give one a row of X.")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError("Got sample weights that are negative, not finite or all zero, expected weights above zero.")
    return Training(np.asarray(checked), y, groups, weights / weights.sum())


def check_shares(y: Float[np.ndarray, " pair"]) -> None:
    """Refuse choices that are no shares.

    Raises:
        ValueError: Labels outside [0, 1].
    """
    if not ((y >= 0) & (y <= 1)).all():
        raise ValueError("Got labels outside [0, 1], expected 1 (first), 0 (second), 0.5 (tie) or a share between.")


def log_loss(
    margins: Float[np.ndarray, "pair column"], targets: Float[np.ndarray, "pair 1"]
) -> Float[np.ndarray, "pair column"]:
    """Return −y·log σ(m) − (1 − y)·log σ(−m) = log(1 + exp(m)) − y·m, without overflow."""
    return np.maximum(margins, 0) + np.log1p(np.exp(-np.abs(margins))) - targets * margins


def root_mean_square(
    X: Float[np.ndarray, "row channel"], weights: Float[np.ndarray, " row"]
) -> Float[np.ndarray, " channel"]:
    """Return each channel's scale about 0, and 1 for a channel that is 0 throughout."""
    # The largest value is taken out first, so that squares neither overflow nor vanish.
    largest = np.maximum(X.max(axis=0), -X.min(axis=0))
    largest[largest == 0] = 1.0
    # A few rows at a time, so that what is squared stays in the cache.
    parts = (slice(start, start + _ROWS_AT_ONCE) for start in range(0, len(X), _ROWS_AT_ONCE))
    power = sum((weights[rows] @ (X[rows] / largest) ** 2 for rows in parts), np.zeros(X.shape[1]))
    scale = largest * np.sqrt(power)
    return np.where(scale > 0, scale, 1.0)


def accuracy_of(
    margins: Float[np.ndarray, " pair"], y: Float[np.ndarray, " pair"], weights: Float[np.ndarray, " pair"]
) -> float:
    """Weighted share of untied pairs whose likelier side has the higher reward, a tied margin one half; NaN if none."""
    asked = (y != 0.5) & (weights > 0)
    if not asked.any():
        return float("nan")
    right = np.where(margins == 0, 0.5, (margins > 0) == (y > 0.5))
    return float(np.average(right[asked], weights=weights[asked]))
