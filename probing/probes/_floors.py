"""Baseline directions that are computed from the training pairs without optimisation."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Real
from numpy.typing import ArrayLike

from probing.probes._base import LinearProbe, accuracy_of, check_choices, check_training, root_mean_square
from probing.probes._rotation import rotate
from probing.probes._selection import FOLDS, grouped_folds


@dataclass(eq=False, repr=False)
class _DirectionProbe(LinearProbe):
    """A direction of standardised differences; folds of whole prompt groups estimate its accuracy."""

    folds: int = FOLDS

    def fit(
        self,
        X: Float[np.ndarray, "pair channel"],
        y: Float[np.ndarray, " pair"],
        groups: ArrayLike | None = None,
        sample_weight: Real[np.ndarray, " pair"] | None = None,
    ) -> _DirectionProbe:
        """Compute the direction; arguments and errors are those of :meth:`probing.probes.LogisticProbe.fit`."""
        X, y, groups, weights = check_training(self, X, y, groups, sample_weight)
        check_choices(y)
        fold_of = grouped_folds(groups, self.folds)
        self.scale_ = root_mean_square(X, weights)
        standardised = X / self.scale_
        margins = np.empty(len(y))
        for fold in range(self.folds):
            out = fold_of == fold
            margins[out] = standardised[out] @ self._direction(standardised[~out], y[~out], weights[~out])
        self.cv_margins_ = margins
        self.cv_accuracy_ = accuracy_of(margins, y, weights)
        self.alpha_, self.scaling_ = float("nan"), "standard"
        self.coef_ = self._direction(standardised, y, weights) / self.scale_
        return self

    @abstractmethod
    def _direction(
        self, X: Float[np.ndarray, "pair channel"], y: Float[np.ndarray, " pair"], weights: Float[np.ndarray, " pair"]
    ) -> Float[np.ndarray, " channel"]:
        """Compute the direction in standardised differences."""


class MeanDifferenceProbe(_DirectionProbe):
    """The mean of chosen minus rejected, in units of each channel's root mean square difference.

    Args:
        folds: Number of folds that estimate the accuracy.

    Attributes:
        coef_: (channel,), for features in their own units.
        scale_: Divisor of each channel, (channel,).
        cv_margins_: Out-of-fold margins, (pair,).
        cv_accuracy_: Out-of-fold accuracy, as in :class:`probing.probes.LogisticProbe`.
        n_features_in_: Number of channels.
    """

    def _direction(
        self, X: Float[np.ndarray, "pair channel"], y: Float[np.ndarray, " pair"], weights: Float[np.ndarray, " pair"]
    ) -> Float[np.ndarray, " channel"]:
        mean: Float[np.ndarray, " channel"] = (weights * (2 * y - 1)) @ X
        return mean


class PrincipalDirectionProbe(_DirectionProbe):
    """The first principal direction of the standardised differences; choices determine its sign alone.

    Differences are not centred, so that swapping the sides of a pair changes nothing. Arguments and attributes are
    those of :class:`MeanDifferenceProbe`.
    """

    def _direction(
        self, X: Float[np.ndarray, "pair channel"], y: Float[np.ndarray, " pair"], weights: Float[np.ndarray, " pair"]
    ) -> Float[np.ndarray, " channel"]:
        direction = rotate(X * np.sqrt(weights)[:, None]).basis[:, -1]
        agreement = (weights * (2 * y - 1)) @ np.sign(X @ direction)
        return direction if agreement >= 0 else -direction
