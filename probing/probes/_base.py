"""The interface of all probes, and what linear probes share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real, Shaped
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted, validate_data

from probing.probes._disk import DiskRows

_ROWS_AT_ONCE = 256


class Probe(BaseEstimator, ABC):
    """A trained map from an item's features to a reward. It is fitted to pairs by the difference of two rewards.

    Every probe is a scikit-learn estimator; ``fit`` and ``decision_function`` take what its class describes, and the
    methods below are the same for all probes. ``items`` holds features of all items, (item, channel) or (item,
    token, channel); ``rows`` the rows of each pair's first and second item in it. Swapping two rows of a pair negates
    its margin.

    Attributes:
        cv_accuracy_: Accuracy on training pairs, by fits without them: out of fold, or on a validation part. A
            predicted tie counts one half; NaN without untied pairs.
        cv_margins_: Margins of the training pairs by fits without them; NaN for a pair that is never left out.
        alpha_: L2 strength that the fit chose; NaN for a probe without one.
        scaling_: Feature scaling that the fit chose; ``standard`` for a probe without the option.
    """

    cv_accuracy_: float
    cv_margins_: Float[np.ndarray, " pair"]
    alpha_: float
    scaling_: str

    @abstractmethod
    def fit_pairs(
        self,
        items: Float[np.ndarray, "item *shape"],
        rows: Int[np.ndarray, "pair 2"],
        y: Float[np.ndarray, " pair"],
        groups: ArrayLike | None = None,
        sample_weight: Real[np.ndarray, " pair"] | None = None,
    ) -> Probe:
        """Fit to pairs of items.

        Args:
            items: Features of all items.
            rows: Rows of each pair's first and second item.
            y: 1 where the first was chosen, 0 the second, 0.5 a tie; fractions between are shares of annotators.
            groups: Prompt group of each pair; each pair its own if None.
            sample_weight: Weight of each pair; only ratios matter.

        Raises:
            ValueError: Input that the probe cannot be fitted to.
        """

    @abstractmethod
    def pair_margins(
        self, items: Float[np.ndarray, "item *shape"], rows: Int[np.ndarray, "pair 2"]
    ) -> Float[np.ndarray, "pair seed"]:
        """Return reward(first) − reward(second) of each pair, one column per training seed (one for linear probes)."""

    @abstractmethod
    def rewards(self, items: Float[np.ndarray, "item *shape"]) -> Float[np.ndarray, " item"]:
        """Return the reward of each item, averaged over seeds."""


class Training(NamedTuple):
    """Checked training data of a linear probe; ``weights`` sum to 1."""

    X: Float[np.ndarray, "row channel"]
    y: Float[np.ndarray, " row"]
    groups: Shaped[np.ndarray, " row"]
    weights: Float[np.ndarray, " row"]


class LinearProbe(Probe):
    """A reward that is a weighted sum of features, x'coef_; the margin of a pair is that of the difference.

    Attributes:
        coef_: (channel,), for features in their own units.
        n_features_in_: Number of channels.
    """

    coef_: Float[np.ndarray, " channel"]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    @abstractmethod
    def fit(
        self,
        X: Float[np.ndarray, "pair channel"],
        y: Float[np.ndarray, " pair"],
        groups: ArrayLike | None = None,
        sample_weight: Real[np.ndarray, " pair"] | None = None,
    ) -> LinearProbe:
        """Fit to differences of features."""

    def decision_function(self, X: Float[np.ndarray, "row channel"]) -> Float[np.ndarray, " row"]:
        """Return the rewards of items, or the margins of pairs when X holds differences."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        rewards: Float[np.ndarray, " row"] = X @ self.coef_
        return rewards

    def fit_pairs(
        self,
        items: Float[np.ndarray, "item *shape"],
        rows: Int[np.ndarray, "pair 2"],
        y: Float[np.ndarray, " pair"],
        groups: ArrayLike | None = None,
        sample_weight: Real[np.ndarray, " pair"] | None = None,
    ) -> LinearProbe:
        """Fit to the differences of pairs of items; see :meth:`Probe.fit_pairs`."""
        return self.fit(differences(items, rows), y, groups, sample_weight)

    def pair_margins(
        self, items: Float[np.ndarray, "item *shape"] | DiskRows, rows: Int[np.ndarray, "pair 2"]
    ) -> Float[np.ndarray, "pair 1"]:
        """Return the margin of each pair; see :meth:`Probe.pair_margins`."""
        if isinstance(items, DiskRows):
            rewards = self.rewards(items)
            margins: Float[np.ndarray, "pair 1"] = (rewards[rows[:, 0]] - rewards[rows[:, 1]])[:, None]
            return margins
        return self.decision_function(differences(items, rows))[:, None]

    def rewards(self, items: Float[np.ndarray, "item *shape"] | DiskRows) -> Float[np.ndarray, " item"]:
        """Return the reward of each item."""
        if isinstance(items, DiskRows):
            flat = items.flat().as_type(np.float64)
            return np.concatenate([self.decision_function(flat[rows]) for rows in flat.blocks()])
        return self.decision_function(items.reshape(len(items), -1).astype(np.float64))


def differences(
    items: Float[np.ndarray, "item *shape"], rows: Int[np.ndarray, "pair 2"]
) -> Float[np.ndarray, "pair channel"]:
    """Subtract the second item's features from the first's, in float64, tokens side by side."""
    flat = items.reshape(len(items), -1)
    difference: Float[np.ndarray, "pair channel"] = flat[rows[:, 0]].astype(np.float64) - flat[rows[:, 1]]
    return difference


def check_training(
    probe: BaseEstimator, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None, sample_weight: ArrayLike | None
) -> Training:
    """Check the training data of a linear probe; a row without a group is a group of its own.

    Raises:
        ValueError: Shapes that do not fit, values that are not finite, weights that are negative or all 0.
    """
    checked, y = validate_data(probe, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2)
    y = np.asarray(y, dtype=np.float64)
    groups = np.arange(len(y)) if groups is None else np.asarray(groups)
    weights = check_weights(sample_weight, len(y))
    if groups.shape != y.shape:
        raise ValueError(f"Got groups of shape {groups.shape}, expected {y.shape}; give one per row of X.")
    return Training(np.asarray(checked), y, groups, weights / weights.sum())


def check_weights(sample_weight: ArrayLike | None, rows: int) -> Float[np.ndarray, " row"]:
    """Return sample weights as float64; ones if None.

    Raises:
        ValueError: Another number of weights than rows, or weights that are negative, not finite or all 0.
    """
    weights = np.ones(rows) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (rows,):
        raise ValueError(f"Got sample_weight of shape {weights.shape}, expected ({rows},); give one per row.")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError("Got sample weights that are negative, not finite or all zero, expected weights above zero.")
    return weights


def check_choices(y: Float[np.ndarray, " pair"]) -> None:
    """Check that labels are choices or shares.

    Raises:
        ValueError: Labels outside [0, 1].
    """
    if not ((y >= 0) & (y <= 1)).all():
        raise ValueError("Got labels outside [0, 1], expected 1 (first), 0 (second), 0.5 (tie) or a share between.")


def log_loss(
    margins: Float[np.ndarray, "pair column"], targets: Float[np.ndarray, "pair 1"]
) -> Float[np.ndarray, "pair column"]:
    """Return −y·log σ(m) − (1 − y)·log σ(−m) = log(1 + exp(m)) − y·m, without overflow."""
    losses: Float[np.ndarray, "pair column"]
    losses = np.maximum(margins, 0) + np.log1p(np.exp(-np.abs(margins))) - targets * margins
    return losses


def largest_values(X: Float[np.ndarray, "row channel"] | DiskRows) -> Float[np.ndarray, " channel"]:
    """Return the largest absolute value of each channel."""
    if isinstance(X, DiskRows):
        by_block = [np.abs(X[rows]).max(axis=0) for rows in X.blocks()]
        return np.asarray(np.max(by_block, axis=0), dtype=np.float64)
    return np.asarray(np.maximum(X.max(axis=0), -X.min(axis=0)))


def root_mean_square(
    X: Float[np.ndarray, "row channel"] | DiskRows, weights: Float[np.ndarray, " row"]
) -> Float[np.ndarray, " channel"]:
    """Return each channel's root mean square, and 1 for a channel that is 0 throughout."""
    # Divide by the largest value first, so that squares neither overflow nor vanish.
    largest = largest_values(X)
    largest[largest == 0] = 1.0
    # Square a few rows at a time, so that they stay in the cache.
    parts = (slice(start, start + _ROWS_AT_ONCE) for start in range(0, len(X), _ROWS_AT_ONCE))
    power = sum((weights[rows] @ (X[rows] / largest) ** 2 for rows in parts), np.zeros(X.shape[1]))
    scale = largest * np.sqrt(power)
    return np.where(scale > 0, scale, 1.0)


def accuracy_of(
    margins: Float[np.ndarray, " pair"], y: Float[np.ndarray, " pair"], weights: Float[np.ndarray, " pair"]
) -> float:
    """Return the weighted share of untied pairs whose likelier side has the higher reward; NaN without untied pairs.

    A margin of 0 counts one half.
    """
    untied = (y != 0.5) & (weights > 0)
    if not untied.any():
        return float("nan")
    correct = np.where(margins == 0, 0.5, (margins > 0) == (y > 0.5))
    return float(np.average(correct[untied], weights=weights[untied]))
