"""L2-penalised logistic regression without intercept, for many columns over one design at once.

Folds and strengths are columns of one problem: they share the design, so every product with it is one matrix
product. In the eigenbasis of the design's Gram matrix the Hessian of each column is nearly diagonal, which makes a
good preconditioner for the conjugate gradients inside Newton's method; a few products per Newton step suffice.
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
    """Rotate a design into the eigenbasis of its Gram matrix.

    Coefficients outside the span of the rows only cost penalty, so a design with more channels than pairs loses
    nothing by being reduced to that span first.
    """
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
    rotation: Rotation,
    targets: Float[np.ndarray, " pair"],
    weights: Float[np.ndarray, "pair column"],
    alphas: Float[np.ndarray, " column"],
    *,
    start: Float[np.ndarray, "rank column"] | None = None,
    tolerance: float = 1e-9,
) -> Float[np.ndarray, "rank column"]:
    """Minimise, for every column c, sum_i weights[i, c] · loss(z_i'b, y_i) + alphas[c]/2 · ||b||².

    Args:
        rotation: The design.
        targets: y in [0, 1].
        weights: Non-negative, each column summing to 1; 0 leaves a pair out.
        alphas: L2 strengths, above 0.
        start: Where to start; zeros if not given.
        tolerance: A column is done when the Newton decrement bounds what is left to gain by this, in nats.

    Returns:
        Coefficients in the rotated basis.

    Warns:
        ConvergenceWarning: Columns that stopped short of the tolerance.
    """
    z, y = rotation.rotated, targets[:, None]
    b = np.zeros((z.shape[1], len(alphas))) if start is None else start.copy()
    open_columns = np.arange(len(alphas))
    margins = z @ b
    for _ in range(_NEWTON_STEPS):
        w, a, here = weights[:, open_columns], alphas[open_columns], b[:, open_columns]
        decay = np.exp(-np.abs(margins))
        chosen = np.where(margins >= 0, 1.0, decay) / (1 + decay)
        gradient = z.T @ (w * (chosen - y)) + a * here
        curvature = w * chosen * (1 - chosen)
        step, along = _newton_direction(rotation, curvature, a, gradient)
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
    rotation: Rotation,
    curvature: Float[np.ndarray, "pair column"],
    alphas: Float[np.ndarray, " column"],
    gradient: Float[np.ndarray, "rank column"],
) -> tuple[Float[np.ndarray, "rank column"], Float[np.ndarray, "pair column"]]:
    """Solve Hessian · step = −gradient by preconditioned conjugate gradients; return step and design · step."""
    z = rotation.rotated
    diagonal = rotation.spectrum[:, None] * curvature.sum(0) + alphas
    step, along = np.zeros_like(gradient), np.zeros_like(curvature)
    residual = -gradient
    towards = residual / diagonal
    direction = towards
    size = (residual * towards).sum(0)
    # Loose far from the optimum, tight near it: Newton's method then keeps its fast end.
    enough = np.minimum(0.1, np.sqrt(size)) ** 2 * size
    for _ in range(_GRADIENT_STEPS):
        product = z @ direction
        image = z.T @ (curvature * product) + alphas * direction
        bend = (direction * image).sum(0)
        # A column that is done takes steps of length 0.
        length = np.divide(size, bend, out=np.zeros_like(size), where=(size > enough) & (bend > 0))
        step, along = step + length * direction, along + length * product
        residual = residual - length * image
        towards = residual / diagonal
        new = (residual * towards).sum(0)
        if not ((new > enough) & (length > 0)).any():
            break
        direction = towards + np.divide(new, size, out=np.zeros_like(size), where=size > 0) * direction
        size = np.where(length > 0, new, 0.0)
    return step, along


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
