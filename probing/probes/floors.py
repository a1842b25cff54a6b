"""Floors: directions that are read off the training pairs without any training."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from probing.probes.base import LinearProbe, accuracy_of, check_shares, check_training, root_mean_square
from probing.probes.rotation import rotate
from probing.probes.selection import FOLDS, grouped_folds


class _Direction(LinearProbe):
    """A direction in standardised differences, its accuracy estimated over folds of whole prompt groups."""

    def __init__(self, folds: int = FOLDS) -> None:
        self.folds = folds

    def fit(
        self,
        X: Float[np.ndarray, "pair channel"],
        y: Float[np.ndarray, " pair"],
        groups: ArrayLike | None = None,
        sample_weight: Float[np.ndarray, " pair"] | None = None,
    ):
        """Find the direction; arguments are those of :meth:`probing.probes.LogisticProbe.fit`.

        Raises:
            ValueError: As there.
        """
        X, y, groups, weights = check_training(self, X, y, groups, sample_weight)
        check_shares(y)
        fold_of = grouped_folds(groups, self.folds)
        self.scale_ = root_mean_square(X, weights)
        standardised = X / self.scale_
        margins = np.empty(len(y))
        for fold in range(self.folds):
            out = fold_of == fold
            margins[out] = standardised[out] @ self._find(standardised[~out], y[~out], weights[~out])
        self.cv_margins_ = margins
        self.cv_accuracy_ = accuracy_of(margins, y, weights)
        self.coef_ = self._find(standardised, y, weights) / self.scale_
        return self

    def _find(self, X: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class MeanDifferenceProbe(_Direction):
    """The mean of chosen minus rejected, in units of each channel's root mean square difference.

    Attributes:
        coef_: (channel,), for features in their own units.
        scale_: (channel,).
        cv_margins_: Out-of-fold margins, (pair,).
        cv_accuracy_: Out-of-fold accuracy, as of :class:`probing.probes.LogisticProbe`.
        n_features_in_: Channels.
    """

    def _find(self, X: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return (weights * (2 * y - 1)) @ X


class PrincipalDirectionProbe(_Direction):
    """The first principal direction of the standardised differences, which sees choices only to know its sign.

    Differences are not centred: which side is first must not matter.

    Attributes:
        coef_: (channel,), for features in their own units.
        scale_: (channel,).
        cv_margins_: Out-of-fold margins, (pair,).
        cv_accuracy_: Out-of-fold accuracy, as of :class:`probing.probes.LogisticProbe`.
        n_features_in_: Channels.
    """

    def _find(self, X: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
        direction = rotate(X * np.sqrt(weights)[:, None]).basis[:, -1]
        agreement = (weights * (2 * y - 1)) @ np.sign(X @ direction)
        return direction if agreement >= 0 else -direction
