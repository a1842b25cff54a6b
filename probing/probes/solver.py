"""L2-penalised logistic regression without intercept, for many columns over one design at once.

Folds, strengths and resamples are columns of one problem: they share the design, so every product with it is one
matrix product. In the eigenbasis of the design's Gram matrix the Hessian of each column is nearly diagonal, which makes
a good preconditioner for the conjugate gradients inside Newton's method; a few products per Newton step suffice.
Directions are found in single precision, gradients and objectives in double: the optimum is that of double precision.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning

_NEWTON_STEPS = 60
_GRADIENT_STEPS = 200
_HALVINGS = 40
_SUFFICIENT = 1e-4
_LOOSEST, _TIGHTEST = 0.3, 1e-3
"""Of the residual that conjugate gradients leave, in the preconditioner's norm."""


class Design(NamedTuple):
    """A design made ready for :func:`solve`; rank k = min(pair, channel).

    Attributes:
        rows: (pair, k), the design, or its rows' coordinates in ``span``.
        span: (channel, k), an orthonormal basis of the rows where there are more channels than pairs, else None.
        single: ``rows`` in single precision.
        basis: (k, k), eigenvectors of the Gram matrix of ``rows``, in single precision.
        spectrum: (k,), eigenvalues of ``rows' · rows / pairs``, in single precision.
    """

    rows: Float[np.ndarray, "pair k"]
    span: Float[np.ndarray, "channel k"] | None
    single: Float[np.ndarray, "pair k"]
    basis: Float[np.ndarray, "k k"]
    spectrum: Float[np.ndarray, " k"]

    def coefficients(self, found: Float[np.ndarray, "k column"]) -> Float[np.ndarray, "channel column"]:
        """Turn what :func:`solve` returns into coefficients of the design's channels."""
        return found if self.span is None else self.span @ found


def prepare(design: Float[np.ndarray, "pair channel"]) -> Design:
    """Make a design ready: reduce it to the span of its rows, and find its Gram matrix's eigenvectors.

    Coefficients outside the span of the rows only cost penalty, so a design with more channels than pairs loses
    nothing by being reduced to that span first.
    """
    pairs, channels = design.shape
    span = None
    if channels > pairs:
        span, triangle = np.linalg.qr(design.T)
        design = np.ascontiguousarray(triangle.T)
    single = design.astype(np.float32)
    spectrum, basis = np.linalg.eigh(single.T @ single / np.float32(pairs))
    return Design(design, span, single, basis, np.maximum(spectrum, 0))


class Rotation(NamedTuple):
    """A design in the eigenbasis of its Gram matrix: ``design · basis = rotated``, rank r = min(pair, channel).

    Attributes:
        rotated: (pair, r), with ``rotated' · rotated / pairs`` diagonal.
        basis: (channel, r), orthonormal columns; coefficients of the design are ``basis · rotated ones``.
        spectrum: That diagonal, (r,).
    """

    rotated: Float[np.ndarray, "pair rank"]
    basis: Float[np.ndarray, "channel rank"]
    spectrum: Float[np.ndarray, " rank"]


def rotate(design: Float[np.ndarray, "pair channel"]) -> Rotation:
    """Rotate a design into the eigenbasis of its Gram matrix, or, where it is wide, into that of its rows' span."""
    pairs, channels = design.shape
    if channels > pairs:
        span, triangle = np.linalg.qr(design.T)
        inner = rotate(np.ascontiguousarray(triangle.T))
        return Rotation(inner.rotated, span @ inner.basis, inner.spectrum)
    spectrum, basis = np.linalg.eigh(design.T @ design / pairs)
    return Rotation(design @ basis, basis, np.maximum(spectrum, 0.0))


def log_loss(
    margins: Float[np.ndarray, "pair column"], targets: Float[np.ndarray, "pair 1"]
) -> Float[np.ndarray, "pair column"]:
    """Return −y·log σ(m) − (1 − y)·log σ(−m) = log(1 + exp(m)) − y·m, without overflow."""
    return np.maximum(margins, 0) + np.log1p(np.exp(-np.abs(margins))) - targets * margins


def solve(
    design: Design,
    targets: Float[np.ndarray, " pair"],
    weights: Float[np.ndarray, "pair column"],
    alphas: Float[np.ndarray, " column"],
    *,
    start: Float[np.ndarray, "k column"] | None = None,
    tolerance: float = 1e-9,
) -> Float[np.ndarray, "k column"]:
    """Minimise, for every column c, sum_i weights[i, c] · loss(x_i'b, y_i) + alphas[c]/2 · ||b||².

    Args:
        design: Whose rows are x.
        targets: y in [0, 1].
        weights: Non-negative, each column summing to 1; 0 leaves a pair out.
        alphas: L2 strengths, above 0.
        start: Where to start; zeros if not given.
        tolerance: A column is done when the Newton decrement bounds what is left to gain by this, in nats.

    Returns:
        Coefficients of ``design.rows``; :meth:`Design.coefficients` makes them those of channels.

    Warns:
        ConvergenceWarning: Columns that stopped short of the tolerance.
    """
    x, y = design.rows, targets[:, None]
    b = np.zeros((x.shape[1], len(alphas))) if start is None else start.copy()
    open_columns = np.arange(len(alphas))
    margins = x @ b
    for _ in range(_NEWTON_STEPS):
        w, a, here = weights[:, open_columns], alphas[open_columns], b[:, open_columns]
        decay = np.exp(-np.abs(margins))
        chosen = np.where(margins >= 0, 1.0, decay) / (1 + decay)
        gradient = x.T @ (w * (chosen - y)) + a * here
        curvature = w * chosen * (1 - chosen)
        step = _newton_direction(design, curvature, a, gradient)
        along = x @ step
        slope = (gradient * step).sum(0)
        size, moved = _line_search(margins, along, here, step, slope, y, w, a)
        b[:, open_columns] = here + size * step
        # The decrement is twice the gain that the quadratic model promises; after the step less is left.
        unfinished = (-slope / 2 > tolerance) & moved
        margins = (margins + size * along)[:, unfinished]
        open_columns = open_columns[unfinished]
        if len(open_columns) == 0:
            return b
    warnings.warn(
        f"{len(open_columns)} of {len(alphas)} logistic fits stopped after {_NEWTON_STEPS} Newton steps; "
        f"raise the smallest alpha.",
        ConvergenceWarning,
        stacklevel=2,
    )
    return b


def _newton_direction(
    design: Design,
    curvature: Float[np.ndarray, "pair column"],
    alphas: Float[np.ndarray, " column"],
    gradient: Float[np.ndarray, "k column"],
) -> Float[np.ndarray, "k column"]:
    """Solve Hessian · step = −gradient by preconditioned conjugate gradients, in single precision."""
    x, basis = design.single, design.basis
    # Columns are scaled to a gradient of length 1: far into the descent, squares of gradients would vanish.
    lengths = np.linalg.norm(gradient, axis=0)
    lengths[lengths == 0] = 1.0
    curvature, alphas = curvature.astype(np.float32), alphas.astype(np.float32)
    diagonal = design.spectrum[:, None] * curvature.sum(0) + alphas
    residual = (-gradient / lengths).astype(np.float32)
    step = np.zeros_like(residual)
    towards = basis @ ((basis.T @ residual) / diagonal)
    direction = towards
    size = (residual * towards).sum(0)
    # Loose far from the optimum, tight near it: Newton's method then keeps its fast end. Not tighter than single
    # precision can be.
    enough = np.clip(np.sqrt(size) * lengths, _TIGHTEST, _LOOSEST).astype(np.float32) ** 2 * size
    for _ in range(_GRADIENT_STEPS):
        image = x.T @ (curvature * (x @ direction)) + alphas * direction
        bend = (direction * image).sum(0)
        # A column that is done takes steps of length 0.
        length = np.divide(size, bend, out=np.zeros_like(size), where=(size > enough) & (bend > 0))
        step = step + length * direction
        residual = residual - length * image
        towards = basis @ ((basis.T @ residual) / diagonal)
        new = (residual * towards).sum(0)
        if not ((new > enough) & (length > 0)).any():
            break
        direction = towards + np.divide(new, size, out=np.zeros_like(size), where=size > 0) * direction
        size = np.where(length > 0, new, 0)
    return step * lengths


def _line_search(
    margins: Float[np.ndarray, "pair column"],
    along: Float[np.ndarray, "pair column"],
    here: Float[np.ndarray, "rank column"],
    step: Float[np.ndarray, "rank column"],
    slope: Float[np.ndarray, " column"],
    targets: Float[np.ndarray, "pair 1"],
    weights: Float[np.ndarray, "pair column"],
    alphas: Float[np.ndarray, " column"],
) -> tuple[Float[np.ndarray, " column"], np.ndarray]:
    """Halve each column's step until it gains enough; return sizes, and which columns could move at all."""

    def objective(size: np.ndarray) -> np.ndarray:
        penalty = alphas / 2 * ((here + size * step) ** 2).sum(0)
        return (weights * log_loss(margins + size * along, targets)).sum(0) + penalty

    size = np.ones_like(slope)
    before = objective(np.zeros_like(slope))
    rounding = 1e-14 * np.abs(before)
    for _ in range(_HALVINGS):
        short = objective(size) > before + _SUFFICIENT * size * slope + rounding
        if not short.any():
            return size, np.ones_like(short)
        size[short] /= 2
    size[short] = 0.0
    return size, ~short
