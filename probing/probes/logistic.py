"""The logistic probe: Bradley–Terry on feature differences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_is_fitted, check_X_y

from probing.probes.selection import grouped_folds

ALPHAS = tuple(10.0 ** np.arange(-4, 2.1, 0.75))
_STEPS = 50
_TOLERANCE = 1e-10


class LogisticProbe(BaseEstimator):
    """Linear reward whose differences give the odds of a choice (Bradley and Terry 1952).

    With x = (features of first − features of second) / scale, y the share that chose the first, and no
    intercept, so that swapping the two sides negates the margin, it minimises::

        mean over pairs of [ log(1 + exp(x·w)) − y·x·w ]  +  alpha/2 · ‖w‖²

    The strength ``alpha`` is the one of least log-loss over folds that never cut a prompt group. The scale is the
    root mean square of each channel's differences in the training pairs; a channel that never differs is left out.

    Args:
        alphas: Strengths to choose from; scikit-learn's ``C`` is 1 / (alpha · number of pairs).
        folds: Of the cross-validation; with one alpha there is still one, for ``cv_accuracy_``.
        seed: Of the folds.

    Attributes:
        coef_: (channel,) reward per unit of raw feature: the scale is divided in.
        scale_: (channel,) the training differences' root mean square.
        alpha_: The chosen strength.
        cv_losses_: For each alpha, the mean out-of-fold log-loss in nats a pair.
        cv_accuracy_: Out-of-fold accuracy over untied training pairs at ``alpha_``, by which blocks can be chosen
            without looking at the test split.
        n_features_in_: Channels.
    """

    def __init__(self, alphas: Sequence[float] = ALPHAS, folds: int = 5, seed: int = 0) -> None:
        self.alphas = alphas
        self.folds = folds
        self.seed = seed

    def fit(self, X: Float[np.ndarray, "pair channel"], y: Float[np.ndarray, "pair"], groups: np.ndarray | None = None):
        """Fit on feature differences.

        Args:
            X: Features of the first item minus those of the second.
            y: In [0, 1]: 1 the first was chosen, 0 the second, 0.5 a tie, or the share of annotators.
            groups: (pair,) the prompt of each; without it every pair is its own group.

        Raises:
            ValueError: Choices outside [0, 1], strengths that are not positive, or arrays that do not match.
        """
        X, y = check_X_y(X, y, dtype=np.float64, y_numeric=True)
        groups = np.arange(len(y)) if groups is None else np.asarray(groups)
        alphas = np.sort(np.asarray(self.alphas, dtype=float))[::-1]
        if len(groups) != len(y):
            raise ValueError(f"Each pair has one group, got {len(groups)} for {len(y)} pairs.")
        if ((y < 0) | (y > 1)).any():
            raise ValueError(f"Choices lie in [0, 1], got {y.min():g} … {y.max():g}.")
        if len(alphas) == 0 or (alphas <= 0).any():
            raise ValueError(f"alphas must be positive, got {list(self.alphas)}.")
        margins = np.empty((len(alphas), len(y)))
        for train, held_out in grouped_folds(groups, self.folds, self.seed):
            scale = _scale(X[train])
            path = _fit_path(X[train] / scale, y[train], alphas)
            margins[:, held_out] = path @ (X[held_out] / scale).T
        losses = (np.logaddexp(0, margins) - y * margins).mean(axis=1)
        best = int(losses.argmin())
        scale = _scale(X)
        untied = y != 0.5
        agrees = (np.sign(margins[best]) == np.sign(y - 0.5)) + 0.5 * (margins[best] == 0)
        self.scale_ = scale
        self.alpha_ = float(alphas[best])
        self.cv_losses_ = dict(zip(alphas.tolist(), losses.tolist(), strict=True))
        self.cv_accuracy_ = float(agrees[untied].mean()) if untied.any() else float("nan")
        self.coef_ = _fit_path(X / scale, y, alphas[: best + 1])[-1] / scale
        self.n_features_in_ = X.shape[1]
        return self

    def decision_function(self, X: Float[np.ndarray, "item channel"]) -> Float[np.ndarray, "item"]:
        """Reward of items, or margin of differences: the map is linear.

        Raises:
            ValueError: Another number of channels than it was fitted on.
        """
        check_is_fitted(self)
        X = check_array(X, dtype=np.float64)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(f"The probe was fitted on {self.n_features_in_} channels, got {X.shape[1]}.")
        return X @ self.coef_


def _scale(X: np.ndarray) -> np.ndarray:
    scale = np.sqrt(np.square(X).mean(axis=0))
    # A channel that never differs says nothing; an infinite scale leaves it out.
    return np.where(scale > 1e-12 * max(scale.max(initial=0.0), 1e-300), scale, np.inf)


def _fit_path(X: np.ndarray, y: np.ndarray, alphas: np.ndarray) -> np.ndarray:
    """Newton's method along decreasing strengths, each started where the last one ended; (alpha, channel)."""
    path = np.empty((len(alphas), X.shape[1]))
    w = np.zeros(X.shape[1])
    for row, alpha in enumerate(alphas):
        w = path[row] = _newton(X, y, alpha, w)
    return path


def _newton(X: np.ndarray, y: np.ndarray, alpha: float, w: np.ndarray) -> np.ndarray:
    """Minimise the objective of :class:`LogisticProbe` from ``w``; its decrement bounds the gap that is left."""
    pairs = len(y)
    margin = X @ w
    value = _objective(margin, y, alpha, w)
    for _ in range(_STEPS):
        probability = 0.5 * (1 + np.tanh(0.5 * margin))
        gradient = X.T @ (probability - y) / pairs + alpha * w
        curvature = probability * (1 - probability) / pairs
        hessian = (X * curvature[:, None]).T @ X
        hessian[np.diag_indices_from(hessian)] += alpha
        step = np.linalg.solve(hessian, gradient)
        decrement = float(gradient @ step)
        if decrement <= _TOLERANCE * max(value, 1e-12):
            break
        length = 1.0
        along = X @ step
        while length > 1e-8:
            trial = _objective(margin - length * along, y, alpha, w - length * step)
            if trial <= value - 1e-4 * length * decrement:
                break
            length *= 0.5
        w, margin, value = w - length * step, margin - length * along, trial
    return w


def _objective(margin: np.ndarray, y: np.ndarray, alpha: float, w: np.ndarray) -> float:
    return float((np.logaddexp(0, margin) - y * margin).mean() + 0.5 * alpha * (w @ w))
