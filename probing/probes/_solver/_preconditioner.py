"""A preconditioner for many logistic problems over one design, by a few Cholesky factors."""

from __future__ import annotations

import copy

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float

_BOUND = 0.25
"""Upper bound of the logistic loss's second derivative (Böhning and Lindsay 1988)."""
_REACH = 4.0
"""Largest ratio between the eigenvalues of a Cholesky factor and those of a column that uses it, either way."""
_ITERATIONS = 6


class Preconditioner:
    """Solve (curvature · Gram + alpha · I) z = g for many columns, approximately.

    Columns whose smallest eigenvalues, relative to their curvature, are similar share a Cholesky factor: if the Gram
    matrix's smallest eigenvalue is far above the smallest strengths, all columns share one.

    Args:
        gram: Gram matrix of the design, in single precision.
        alphas: Strength of each column.
        curvature: Mean second derivative of each column's loss; the bound of ¼ if None.

    Attributes:
        curvature: As given.
    """

    def __init__(
        self,
        gram: Float[np.ndarray, "k k"],
        alphas: Float[np.ndarray, " column"],
        curvature: Float[np.ndarray, " column"] | None = None,
    ) -> None:
        self.curvature = np.full(len(alphas), _BOUND) if curvature is None else np.maximum(curvature, 1e-300)
        shifts = np.maximum(alphas / self.curvature, np.finfo(np.float32).tiny)
        self._factors: list[np.ndarray] = []
        self._factor_of = np.zeros(len(alphas), dtype=int)
        remaining, smallest = np.ones(len(alphas), dtype=bool), 0.0
        while remaining.any():
            weakest = shifts[remaining].min()
            alone = shifts[remaining].max() < 2 * weakest
            shift = weakest if alone else _REACH * (smallest + weakest) - smallest
            factor = _factor(gram, shift)
            if not self._factors and not alone:
                smallest = max(_smallest_eigenvalue(factor) - shift, 0.0)
            served = remaining & (shifts <= _REACH * (smallest + shift) - smallest)
            self._factor_of[served] = len(self._factors)
            self._factors.append(factor)
            remaining &= ~served

    def __call__(self, gradient: Float[np.ndarray, "k column"]) -> Float[np.ndarray, "k column"]:
        """Apply the preconditioner to a gradient of each column."""
        # Near the optimum, gradients are too small for single precision.
        lengths = np.linalg.norm(gradient, axis=0)
        lengths[lengths == 0] = 1.0
        scaled = (gradient / lengths).astype(np.float32)
        if len(self._factors) == 1:
            solved = _solve(self._factors[0], scaled).astype(gradient.dtype)
        else:
            solved = np.empty_like(gradient)
            for number in np.unique(self._factor_of):
                users = self._factor_of == number
                solved[:, users] = _solve(self._factors[number], scaled[:, users])
        solved *= (lengths / self.curvature).astype(gradient.dtype)
        return solved

    def select(self, columns: Bool[np.ndarray, " column"]) -> Preconditioner:
        """Return the preconditioner of some columns."""
        selected = copy.copy(self)
        selected.curvature, selected._factor_of = self.curvature[columns], self._factor_of[columns]
        return selected

    def far_from(self, curvature: Float[np.ndarray, " column"]) -> bool:
        """Return whether any column's curvature has halved or doubled."""
        return bool((np.abs(np.log2(np.maximum(curvature, 1e-300) / self.curvature)) > 1).any())


def _factor(matrix: Float[np.ndarray, "k k"], shift: float) -> Float[np.ndarray, "k k"]:
    """Return the lower Cholesky factor of ``matrix + shift·I``; raise the shift where rounding makes it fail."""
    least = 1e-7 * float(np.trace(matrix)) / len(matrix)
    while True:
        shifted = matrix.copy()
        np.einsum("ii->i", shifted)[:] += np.float32(shift)
        try:
            factor: Float[np.ndarray, "k k"]
            factor = scipy.linalg.cholesky(shifted, lower=True, overwrite_a=True, check_finite=False)
            return factor
        except np.linalg.LinAlgError:
            shift = max(10 * shift, least)


def _solve(factor: Float[np.ndarray, "k k"], values: Float[np.ndarray, "k *column"]) -> Float[np.ndarray, "k *column"]:
    """Solve with a Cholesky factor, by LAPACK itself: SciPy's checks take longer where matrices are small."""
    solved: Float[np.ndarray, "k *column"]
    solved, _ = scipy.linalg.lapack.spotrs(factor, values, lower=1)
    return solved


def _smallest_eigenvalue(factor: Float[np.ndarray, "k k"]) -> float:
    """Estimate the smallest eigenvalue of the factored matrix, from above, by inverse iteration."""
    vector = np.random.default_rng(0).normal(size=len(factor)).astype(np.float32)
    length = 1.0
    for _ in range(_ITERATIONS):
        vector /= np.linalg.norm(vector)
        vector = _solve(factor, vector)
        length = float(np.linalg.norm(vector))
    return 1 / length
