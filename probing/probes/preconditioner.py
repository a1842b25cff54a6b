"""A preconditioner of many logistic problems over one design: Cholesky factors of bounds of their Hessians."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from jaxtyping import Float

_BOUND = 0.25
"""The logistic loss bends by at most this (Böhning and Lindsay 1988)."""
_REACH = 4.0
"""Factor by which a factor's eigenvalues may miss those of a strength it serves, either way."""
_POWERS = 6
_NONE = np.empty((0, 0), dtype=np.float32)


class Preconditioner:
    """Solves (¼·Gram + alpha·I) z = g for columns of several alphas, with few factors.

    Columns whose smallest eigenvalues are within a factor of one another share a factor: where the Gram matrix's own
    smallest eigenvalue is far above the weakest strengths, one serves them all.

    Args:
        gram: Of the design, in single precision.
        alphas: Strength of each column.
    """

    def __init__(self, gram: Float[np.ndarray, "k k"], alphas: Float[np.ndarray, " column"]) -> None:
        self._factors: list[np.ndarray] = []
        self._factor_of = np.zeros(len(alphas), dtype=int)
        self._bound = np.full(len(alphas), _BOUND)
        bound = gram * gram.dtype.type(_BOUND)
        smallest = 0.0
        left = np.ones(len(alphas), dtype=bool)
        while left.any():
            weakest = alphas[left].min()
            alone = alphas[left].max() == weakest
            shift = weakest if alone else _REACH * (smallest + weakest) - smallest
            factor = _factor(bound, shift)
            if not self._factors and not alone:
                smallest = max(_smallest_eigenvalue(factor) - shift, 0.0)
            served = left & (alphas <= _REACH * (smallest + shift) - smallest)
            self._factor_of[served] = len(self._factors)
            self._factors.append(factor)
            left &= ~served

    def __call__(
        self, gradient: Float[np.ndarray, "k column"], columns: np.ndarray
    ) -> tuple[Float[np.ndarray, "k column"], Float[np.ndarray, " column"]]:
        """Apply it to gradients of some columns; also give the curvature of the loss that each factor assumes."""
        found = np.empty_like(gradient)
        # Gradients far into a descent are too small for single precision's squares.
        lengths = np.linalg.norm(gradient, axis=0)
        lengths[lengths == 0] = 1.0
        scaled = (gradient / lengths).astype(np.float32)
        for number in np.unique(self._factor_of[columns]):
            here = np.flatnonzero(self._factor_of[columns] == number)
            found[:, here] = scipy.linalg.cho_solve((self._factors[number], True), scaled[:, here], check_finite=False)
        return found * lengths, self._bound[columns]

    def renew(
        self,
        x: Float[np.ndarray, "pair k"],
        curvature: Float[np.ndarray, "pair column"],
        alphas: Float[np.ndarray, " column"],
        columns: np.ndarray,
    ) -> None:
        """Take the mean Hessian of each strength's columns for the bound: where margins are large the bound is loose.

        Args:
            x: The design, in single precision.
            curvature: Weight of each pair times the second derivative of its loss, of the columns given.
            alphas: Strengths of all columns.
            columns: Which columns.
        """
        for alpha in np.unique(alphas[columns]):
            here = alphas[columns] == alpha
            mean = curvature[:, here].mean(axis=1)
            rooted = np.sqrt(mean, dtype=np.float32)[:, None] * x
            self._factor_of[columns[here]] = len(self._factors)
            self._bound[columns[here]] = float(mean.sum(dtype=np.float64))
            self._factors.append(_factor(rooted.T @ rooted, alpha))
        used = set(self._factor_of[columns].tolist())
        self._factors = [factor if number in used else _NONE for number, factor in enumerate(self._factors)]


def _factor(matrix: Float[np.ndarray, "k k"], shift: float) -> Float[np.ndarray, "k k"]:
    """Lower Cholesky factor of ``matrix + shift·I``, with more of a shift where rounding asks for it."""
    diagonal = np.einsum("ii->i", matrix)
    least = 1e-7 * float(diagonal.mean())
    while True:
        shifted = matrix.copy()
        np.einsum("ii->i", shifted)[:] = diagonal + np.float32(shift)
        try:
            return scipy.linalg.cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            shift = max(10 * shift, least)


def _smallest_eigenvalue(factor: Float[np.ndarray, "k k"]) -> float:
    """Of the factored matrix, from above, by inverse iteration."""
    vector = np.random.default_rng(0).normal(size=len(factor)).astype(np.float32)
    length = 1.0
    for _ in range(_POWERS):
        vector /= np.linalg.norm(vector)
        vector = scipy.linalg.cho_solve((factor, True), vector, check_finite=False)
        length = float(np.linalg.norm(vector))
    return 1 / length
