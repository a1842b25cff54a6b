"""Newton's method in double precision, for many logistic problems at once.

Preconditioned conjugate gradients in single precision compute the steps; gradients, line searches and the optimum are
in double precision.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from probing.probes._base import log_loss
from probing.probes._disk import blocks_of
from probing.probes._solver._columns import Matrix, Weights, select, zeros
from probing.probes._solver._design import Design
from probing.probes._solver._preconditioner import Preconditioner
from probing.probes._solver._products import curvature_times, times

_STEPS = 60
_GRADIENT_STEPS = 200
_HALVINGS = 40
_SUFFICIENT = 1e-4
"""Share of the linear decrease that a step must reach (Armijo)."""
_LOOSEST, _TIGHTEST = 0.3, 1e-3
"""Bounds of the residual at which conjugate gradients stop, in the preconditioner's norm; the lower one is the limit of
single precision."""


def finish(
    design: Design,
    targets: Float[np.ndarray, " pair"],
    weights: Weights,
    alphas: Float[np.ndarray, " column"],
    b: Float[np.ndarray, "k column"],
    columns: Int[np.ndarray, " some"],
    tolerance: float,
) -> Bool[np.ndarray, " some"]:
    """Move some columns of ``b`` to their optimum, in place; return whether each one converged.

    Args:
        design: As in :func:`probing.probes._solver.solve`.
        targets: As there.
        weights: As there.
        alphas: As there.
        b: Coefficients, changed in place.
        columns: Columns to move.
        tolerance: A column is done when the Newton decrement bounds the remaining decrease by this share of its
            objective.
    """
    x, y = design.rows, targets[:, None]
    converged = np.zeros(len(columns), dtype=bool)
    active = np.arange(len(columns))
    blocks = list(blocks_of(x, 0, len(x), 2 * len(columns)))
    margins = times(x, b[:, columns])
    for _ in range(_STEPS):
        selected = columns[active]
        w, a, start = select(weights, selected), alphas[selected], b[:, selected]
        gradient, loss, curvature, mean_curvature = _derivatives(design, y, w, margins, blocks)
        gradient += a * start
        before = loss + a / 2 * (start**2).sum(axis=0)
        step, residual = _direction(design, curvature, mean_curvature, a, gradient, tolerance * before)
        del curvature
        along = times(x, step)
        slope = (gradient * step).sum(axis=0)
        size, moved = _line_search(before, margins, along, start, step, slope, y, w, a, blocks)
        b[:, selected] = start + size * step
        # The decrement is twice the decrease of the quadratic model. Close to the optimum the model is exact, and a
        # step leaves the share of the decrease that the conjugate gradients left.
        close = -slope / 2 < 1e-8 * before
        done = (-slope / 2 * np.where(close, residual, 1.0) <= tolerance * before) | ~moved
        converged[active[done]] = moved[done] | (-slope / 2 <= 1e-12 * before)[done]
        active = active[~done]
        if len(active) == 0:
            break
        for rows in blocks:
            margins[rows] += size * along[rows]
        del along
        margins = select(margins, ~done)
    return converged


def _derivatives(
    design: Design, targets: Float[np.ndarray, "pair 1"], weights: Weights, margins: Matrix, blocks: list[slice]
) -> tuple[Float[np.ndarray, "k column"], Float[np.ndarray, " column"], Matrix, Float[np.ndarray, " column"]]:
    """Return the gradient of the mean loss, the mean loss, and its second derivatives, by pair and their sum."""
    x, columns = design.rows, margins.shape[1]
    gradient = np.zeros((x.shape[1], columns))
    loss, mean_curvature = np.zeros(columns), np.zeros(columns)
    curvature = zeros(design.single, columns, np.float32)
    for rows in blocks:
        m, w, y = margins[rows], weights[rows], targets[rows]
        tanh = np.tanh(m / 2)
        gradient += x[rows].T @ (w * (tanh / 2 + (0.5 - y)))
        second = w * (1 - tanh**2) / 4
        loss += (w * log_loss(m, y)).sum(axis=0)
        mean_curvature += second.sum(axis=0)
        curvature[rows] = second
    return gradient, loss, curvature, mean_curvature


def _direction(
    design: Design,
    curvature: Matrix,
    mean_curvature: Float[np.ndarray, " column"],
    alphas: Float[np.ndarray, " column"],
    gradient: Float[np.ndarray, "k column"],
    sufficient: Float[np.ndarray, " column"],
) -> tuple[Float[np.ndarray, "k column"], Float[np.ndarray, " column"]]:
    """Solve Hessian · step = −gradient by conjugate gradients; also return the largest remaining share of the gain."""
    x = design.single
    # Scale columns to a gradient of length 1: near the optimum, squares of gradients would underflow.
    lengths = np.linalg.norm(gradient, axis=0)
    lengths[lengths == 0] = 1.0
    preconditioner = Preconditioner(design.gram, alphas, mean_curvature)
    alphas = alphas.astype(np.float32)
    residual = (-gradient / lengths).astype(np.float32)
    step = np.zeros_like(residual)
    conditioned = preconditioner(residual)
    direction = conditioned
    size = (residual * conditioned).sum(axis=0)
    # Loose far from the optimum, tight near it, so that Newton's method converges fast at the end. No tighter than the
    # tolerance needs.
    gain = np.maximum(size * lengths**2 / 2, np.finfo(np.float64).tiny)
    forcing = np.maximum(np.sqrt(2 * gain), np.sqrt(sufficient / gain) / 3)
    share = np.clip(forcing, _TIGHTEST, _LOOSEST) ** 2
    threshold = (share * size).astype(np.float32)
    for _ in range(_GRADIENT_STEPS):
        image = curvature_times(x, curvature, direction) + alphas * direction
        curvature_along = (direction * image).sum(axis=0)
        # A finished column takes steps of length 0.
        length = np.divide(
            size, curvature_along, out=np.zeros_like(size), where=(size > threshold) & (curvature_along > 0)
        )
        step = step + length * direction
        residual = residual - length * image
        conditioned = preconditioner(residual)
        new = (residual * conditioned).sum(axis=0)
        if not ((new > threshold) & (length > 0)).any():
            break
        direction = conditioned + np.divide(new, size, out=np.zeros_like(size), where=size > 0) * direction
        size = np.where(length > 0, new, 0)
    return step * lengths, share


def _line_search(
    before: Float[np.ndarray, " column"],
    margins: Matrix,
    along: Matrix,
    start: Float[np.ndarray, "k column"],
    step: Float[np.ndarray, "k column"],
    slope: Float[np.ndarray, " column"],
    targets: Float[np.ndarray, "pair 1"],
    weights: Weights,
    alphas: Float[np.ndarray, " column"],
    blocks: list[slice],
) -> tuple[Float[np.ndarray, " column"], Bool[np.ndarray, " column"]]:
    """Halve each column's step until the objective decreases enough; return sizes, and whether each column moved."""
    size = np.ones_like(slope)
    rounding = 1e-14 * np.abs(before)
    for _ in range(_HALVINGS):
        loss = np.zeros_like(slope)
        for rows in blocks:
            loss += (weights[rows] * log_loss(margins[rows] + size * along[rows], targets[rows])).sum(axis=0)
        after = loss + alphas / 2 * ((start + size * step) ** 2).sum(axis=0)
        rejected = after > before + _SUFFICIENT * size * slope + rounding
        if not rejected.any():
            return size, np.ones_like(rejected)
        size[rejected] /= 2
    size[rejected] = 0.0
    return size, ~rejected
