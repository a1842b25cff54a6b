"""A preconditioner of many logistic problems over one design, by a few Cholesky factors."""

from __future__ import annotations

import copy

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float

_BOUND = 0.25
"""The logistic loss bends by at most this (Böhning and Lindsay 1988)."""
_REACH = 4.0
"""Factor by which a factor's eigenvalues may miss those of a column that it serves, either way."""
_POWERS = 6


class Preconditioner:
    """Solves (curvature · Gram + alpha · I) z = g for many columns.

    Columns share a factor where their smallest eigenvalues, relative to their curvature, are within a factor of one
    another: where the Gram matrix's own smallest eigenvalue is far above the weakest strengths, one serves them all.

    Args:
        gram: Of the design, in single precision.
        alphas: Strength of each column.
        curvature: Mean second derivative of each column's loss; the bound of ¼ if not given.

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
        left, smallest = np.ones(len(alphas), dtype=bool), 0.0
        while left.any():
            weakest = shifts[left].min()
            alone = shifts[left].max() < 2 * weakest
            shift = weakest if alone else _REACH * (smallest + weakest) - smallest
            factor = _factor(gram, shift)
            if not self._factors and not alone:
                smallest = max(_smallest_eigenvalue(factor) - shift, 0.0)
            served = left & (shifts <= _REACH * (smallest + shift) - smallest)
            self._factor_of[served] = len(self._factors)
            self._factors.append(factor)
            left &= ~served

    def __call__(self, gradient: Float[np.ndarray, "k column"]) -> Float[np.ndarray, "k column"]:
        """Apply it to a gradient of each column."""
        # Far into a descent gradients are too small for single precision.
        lengths = np.linalg.norm(gradient, axis=0)
        lengths[lengths == 0] = 1.0
        scaled = (gradient / lengths).astype(np.float32)
        found = np.empty_like(gradient)
        for number in np.unique(self._factor_of):
            here = self._factor_of == number
            found[:, here] = scipy.linalg.cho_solve((self._factors[number], True), scaled[:, here], check_finite=False)
        found *= (lengths / self.curvature).astype(gradient.dtype)
        return found

    def of(self, columns: Bool[np.ndarray, " column"]) -> Preconditioner:
        """Keep some columns."""
        kept = copy.copy(self)
        kept.curvature, kept._factor_of = self.curvature[columns], self._factor_of[columns]
        return kept

    def far_from(self, curvature: Float[np.ndarray, " column"]) -> bool:
        """Say whether any column's curvature is less than half of what it was made for, or more than twice."""
        return bool((np.abs(np.log2(np.maximum(curvature, 1e-300) / self.curvature)) > 1).any())


def _factor(matrix: Float[np.ndarray, "k k"], shift: float) -> Float[np.ndarray, "k k"]:
    """Lower Cholesky factor of ``matrix + shift·I``, with more of a shift where rounding asks for it."""
    least = 1e-7 * float(np.trace(matrix)) / len(matrix)
    while True:
        shifted = matrix.copy()
        np.einsum("ii->i", shifted)[:] += np.float32(shift)
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
