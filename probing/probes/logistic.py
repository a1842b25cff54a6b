"""The logistic probe: Bradley–Terry on feature differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from probing.probes.selection import FOLDS, grouped_folds
from probing.probes.solver import log_loss, rotate, solve
from probing.statistics import outcomes

ALPHAS: tuple[float, ...] = tuple(float(alpha) for alpha in np.logspace(-4, 1, 11))
"""The default grid of L2 strengths: half decades from 1e-4 to 10."""

_SELECTION_TOLERANCE = 1e-7
_FINAL_TOLERANCE = 1e-12


class LogisticProbe(BaseEstimator):
    """Logistic regression without intercept on standardised feature differences (Bradley–Terry).

    With s_i = (x_i first − x_i second) / scale, it minimises over w

        mean_i [ log(1 + exp(s_i'w)) − y_i · s_i'w ] + alpha/2 · ||w||²

    that is, the mean loss per pair in nats plus the penalty, so alpha means the same for any number of pairs
    (scikit-learn's C is 1 / (pairs · alpha)). The reward of an item with features x is x'coef_, coef_ = w / scale;
    without an intercept the margin of a pair is the difference of two rewards, and swapping its sides negates it.

    ``scale`` is each channel's root mean square of the training differences. It does not depend on which side is
    first; nothing is centred, since that would. A channel that never differs has scale 1 and coefficient 0.

    Alpha is chosen by cross-validation over folds of whole prompt groups, by the mean out-of-fold log-loss over
    pairs; of equally good ones, the largest. The folds share ``scale``, which sees no choices.

    Args:
        alphas: Grid of strengths, each above 0.
        folds: Number of folds.

    Attributes:
        coef_: (channel,), for features in their own units.
        scale_: (channel,).
        alpha_: The strength chosen.
        cv_scores_: Out-of-fold log-loss of each of ``alphas``, in nats; log 2 is chance.
        cv_accuracy_: Out-of-fold accuracy at ``alpha_`` over untied pairs, a predicted tie counting one half; a soft
            label counts as its likelier side. NaN if all pairs are ties.
        n_features_in_: Channels.
    """

    def __init__(self, alphas: Sequence[float] = ALPHAS, folds: int = FOLDS) -> None:
        self.alphas = alphas
        self.folds = folds

    def fit(
        self, X: Float[np.ndarray, "pair channel"], y: Float[np.ndarray, " pair"], groups: ArrayLike
    ) -> LogisticProbe:
        """Choose the strength by grouped cross-validation and fit to all pairs.

        Args:
            X: Features of the first item minus those of the second.
            y: 1 where the first was chosen, 0 the second, 0.5 a tie; fractions between are shares of annotators.
            groups: Prompt group of each pair.

        Raises:
            ValueError: Shapes that do not fit, values that are not finite, labels outside [0, 1], or too few groups.
        """
        X, y, groups = _check(X, y, groups)
        alphas = np.asarray(self.alphas, dtype=np.float64)
        if alphas.ndim != 1 or len(alphas) == 0 or not (alphas > 0).all():
            raise ValueError(f"Got alphas {self.alphas}, expected numbers above 0; give at least one.")
        fold_of = grouped_folds(groups, self.folds)
        scale = np.sqrt(np.mean(X**2, axis=0))
        self.scale_ = np.where(scale > 0, scale, 1.0)
        self.n_features_in_ = X.shape[1]
        rotation = rotate(X / self.scale_)

        # One column for each (fold, strength); a fold's own pairs weigh nothing in its columns.
        kept = (fold_of[:, None] != np.arange(self.folds)).astype(np.float64)
        weights = np.repeat(kept / kept.sum(0), len(alphas), axis=1)
        coefficients = solve(rotation, y, weights, np.tile(alphas, self.folds), tolerance=_SELECTION_TOLERANCE).reshape(
            -1, self.folds, len(alphas)
        )
        margins = np.empty((len(y), len(alphas)))
        for fold in range(self.folds):
            held_out = fold_of == fold
            margins[held_out] = rotation.rotated[held_out] @ coefficients[:, fold]
        self.cv_scores_ = log_loss(margins, y[:, None]).mean(0)
        best = _largest_best(self.cv_scores_, alphas)
        self.alpha_ = float(alphas[best])
        likelier = np.where(y > 0.5, 1.0, np.where(y < 0.5, 0.0, 0.5))
        scored = outcomes(margins[:, best], likelier)
        self.cv_accuracy_ = float(np.nanmean(scored)) if (likelier != 0.5).any() else float("nan")

        final = solve(
            rotation,
            y,
            np.full((len(y), 1), 1 / len(y)),
            alphas[best : best + 1],
            start=coefficients[:, :, best].mean(1, keepdims=True),
            tolerance=_FINAL_TOLERANCE,
        )
        self.coef_ = rotation.basis @ final[:, 0] / self.scale_
        return self

    def decision_function(self, X: Float[np.ndarray, "row channel"]) -> Float[np.ndarray, " row"]:
        """Give the rewards of items, or the margins of pairs when X holds differences."""
        check_is_fitted(self)
        X = np.asarray(X, dtype=np.float64)
        if X.ndim != 2 or X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"Got features of shape {X.shape}, expected (row, {self.n_features_in_}); "
                f"score features of the array that the probe was fitted on."
            )
        return X @ self.coef_


def _largest_best(scores: Float[np.ndarray, " alpha"], alphas: Float[np.ndarray, " alpha"]) -> int:
    """Find the lowest log-loss; among those equal to it within the solver's tolerance, the largest strength."""
    best = np.flatnonzero(scores <= scores.min() + _SELECTION_TOLERANCE)
    return int(best[np.argmax(alphas[best])])


def _check(X: ArrayLike, y: ArrayLike, groups: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    X, y, groups = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64), np.asarray(groups)
    if X.ndim != 2 or y.shape != X.shape[:1] or groups.shape != y.shape:
        raise ValueError(
            f"Got X of shape {X.shape}, y of shape {y.shape} and groups of shape {groups.shape}, expected "
            f"(pair, channel), (pair,) and (pair,); give one label and one prompt a pair."
        )
    if not np.isfinite(X).all():
        raise ValueError(
            f"Got {int((~np.isfinite(X)).sum())} features that are not finite, expected numbers; "
            f"extract them again in float32."
        )
    if not ((y >= 0) & (y <= 1)).all():
        raise ValueError("Got labels outside [0, 1], expected 1 (first), 0 (second), 0.5 (tie) or a share between.")
    return X, y, groups
