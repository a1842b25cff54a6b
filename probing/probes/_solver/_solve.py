"""L2-penalised logistic regression without intercept, for many columns over one design at once.

Folds, strengths and resamples are columns of one problem: they share the design, so every product with it is one
matrix product, where a loop over fits reads the whole design for each. The Gram matrix, which preconditions all
columns, is formed once. Conjugate gradients in single precision reach a billionth of the objective; Newton's method in
double precision goes further where requested, and finishes columns that did not converge.
"""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning

from probing.probes._disk import DiskRows
from probing.probes._solver._columns import Weights
from probing.probes._solver._descent import descend
from probing.probes._solver._design import Design
from probing.probes._solver._newton import finish

_SINGLE = 1e-9
"""Smallest tolerance for which single precision suffices."""


def solve(
    design: Design,
    targets: Float[np.ndarray, " pair"],
    weights: Weights,
    alphas: Float[np.ndarray, " column"],
    *,
    start: Float[np.ndarray, "k column"] | None = None,
    tolerance: float = 1e-6,
) -> Float[np.ndarray, "k column"]:
    """Minimise, for every column c, sum_i weights[i, c] · loss(x_i'b, y_i) + alphas[c]/2 · ||b||².

    Contiguous rows without weight in a column are skipped: sort rows by fold.

    Args:
        design: Its rows are x.
        targets: y in [0, 1].
        weights: Non-negative, each column summing to 1; 0 leaves a pair out. Lazy ones are computed at once
            unless the design is on disk.
        alphas: L2 strengths, above 0.
        start: Initial coefficients; zeros if None.
        tolerance: A column is done when the estimated remaining decrease is this share of its objective.

    Returns:
        Coefficients of ``design.rows``; :meth:`Design.coefficients` converts them.

    Warns:
        ConvergenceWarning: Columns that did not reach the tolerance.
    """
    if not isinstance(design.rows, DiskRows):
        weights = weights[:]
    b = np.zeros((design.rows.shape[1], len(alphas))) if start is None else start.astype(np.float64)
    remaining = descend(design.single, design.gram, targets, weights, alphas, b, max(tolerance, _SINGLE))
    if tolerance < _SINGLE:
        remaining = np.arange(len(alphas))
    if len(remaining):
        remaining = remaining[~finish(design, targets, weights, alphas, b, remaining, tolerance)]
    if len(remaining):
        warnings.warn(
            f"{len(remaining)} of {len(alphas)} logistic fits stopped before their optimum; raise the smallest alpha.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return b
