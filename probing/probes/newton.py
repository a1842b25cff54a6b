"""The end of a descent, in double precision: Newton's method for many logistic problems at once.

Its steps are found by preconditioned conjugate gradients in single precision; the gradients they answer, the searches
along them and the optimum are those of double precision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from probing.probes.base import log_loss
from probing.probes.preconditioner import Preconditioner

if TYPE_CHECKING:
    from probing.probes.solver import Design

_STEPS = 60
_GRADIENT_STEPS = 200
_HALVINGS = 40
_SUFFICIENT = 1e-4
_LOOSEST, _TIGHTEST = 0.3, 1e-3
"""Of the residual that conjugate gradients leave, in the preconditioner's norm; single precision allows no less."""


def finish(
    design: Design,
    targets: Float[np.ndarray, " pair"],
    weights: Float[np.ndarray, "pair column"],
    alphas: Float[np.ndarray, " column"],
    b: Float[np.ndarray, "k column"],
    columns: Int[np.ndarray, " some"],
    tolerance: float,
) -> Bool[np.ndarray, " some"]:
    """Move some columns of ``b`` to their optimum, in place; say which arrived.

    Args:
        design: As of :func:`probing.probes.solver.solve`, and so the next three.
        targets: Of each pair.
        weights: Of each pair in each column.
        alphas: Strengths.
        b: Coefficients, moved in place.
        columns: Which.
        tolerance: A column is done when the Newton decrement bounds what is left to gain by this share of its
            objective.
    """
    x, y = design.rows, targets[:, None]
    arrived = np.zeros(len(columns), dtype=bool)
    still = np.arange(len(columns))
    margins = x @ b[:, columns]
    for _ in range(_STEPS):
        here = columns[still]
        w, a, start = weights[:, here], alphas[here], b[:, here]
        bent = np.tanh(margins / 2)
        gradient = x.T @ (w * (bent / 2 + (0.5 - y))) + a * start
        curvature = w * (1 - bent**2) / 4
        before = (w * log_loss(margins, y)).sum(axis=0) + a / 2 * (start**2).sum(axis=0)
        step, left_of = _direction(design, curvature, a, gradient, tolerance * before)
        along = x @ step
        slope = (gradient * step).sum(axis=0)
        size, moved = _line_search(before, margins, along, start, step, slope, y, w, a)
        b[:, here] = start + size * step
        # The decrement is twice the gain that the quadratic model promises. Close to the optimum the model is right,
        # and a step leaves of it what the conjugate gradients left.
        close = -slope / 2 < 1e-8 * before
        done = (-slope / 2 * np.where(close, left_of, 1.0) <= tolerance * before) | ~moved
        arrived[still[done]] = moved[done] | (-slope / 2 <= 1e-12 * before)[done]
        margins = (margins + size * along)[:, ~done]
        still = still[~done]
        if len(still) == 0:
            break
    return arrived


def _direction(
    design: Design,
    curvature: Float[np.ndarray, "pair column"],
    alphas: Float[np.ndarray, " column"],
    gradient: Float[np.ndarray, "k column"],
    enough_gain: Float[np.ndarray, " column"],
) -> tuple[Float[np.ndarray, "k column"], Float[np.ndarray, " column"]]:
    """Solve Hessian · step = −gradient by conjugate gradients; also give the share of the gain that may be left."""
    x = design.single
    # Columns are scaled to a gradient of length 1: far into the descent, squares of gradients would vanish.
    lengths = np.linalg.norm(gradient, axis=0)
    lengths[lengths == 0] = 1.0
    preconditioner = Preconditioner(design.gram, alphas, curvature.sum(axis=0))
    curvature, alphas = curvature.astype(np.float32), alphas.astype(np.float32)
    residual = (-gradient / lengths).astype(np.float32)
    step = np.zeros_like(residual)
    towards = preconditioner(residual)
    direction = towards
    size = (residual * towards).sum(axis=0)
    # Loose far from the optimum, tight near it: Newton's method then keeps its fast end. No tighter than what is
    # asked for needs.
    gain = np.maximum(size * lengths**2 / 2, np.finfo(np.float64).tiny)
    forced = np.maximum(np.sqrt(2 * gain), np.sqrt(enough_gain / gain) / 3)
    share = np.clip(forced, _TIGHTEST, _LOOSEST) ** 2
    enough = (share * size).astype(np.float32)
    for _ in range(_GRADIENT_STEPS):
        image = x.T @ (curvature * (x @ direction)) + alphas * direction
        bend = (direction * image).sum(axis=0)
        # A column that is done takes steps of length 0.
        length = np.divide(size, bend, out=np.zeros_like(size), where=(size > enough) & (bend > 0))
        step = step + length * direction
        residual = residual - length * image
        towards = preconditioner(residual)
        new = (residual * towards).sum(axis=0)
        if not ((new > enough) & (length > 0)).any():
            break
        direction = towards + np.divide(new, size, out=np.zeros_like(size), where=size > 0) * direction
        size = np.where(length > 0, new, 0)
    return step * lengths, share


def _line_search(
    before: Float[np.ndarray, " column"],
    margins: Float[np.ndarray, "pair column"],
    along: Float[np.ndarray, "pair column"],
    start: Float[np.ndarray, "k column"],
    step: Float[np.ndarray, "k column"],
    slope: Float[np.ndarray, " column"],
    targets: Float[np.ndarray, "pair 1"],
    weights: Float[np.ndarray, "pair column"],
    alphas: Float[np.ndarray, " column"],
) -> tuple[Float[np.ndarray, " column"], Bool[np.ndarray, " column"]]:
    """Halve each column's step until it gains enough; return sizes, and which columns could move at all."""
    size = np.ones_like(slope)
    rounding = 1e-14 * np.abs(before)
    for _ in range(_HALVINGS):
        penalty = alphas / 2 * ((start + size * step) ** 2).sum(axis=0)
        after = (weights * log_loss(margins + size * along, targets)).sum(axis=0) + penalty
        short = after > before + _SUFFICIENT * size * slope + rounding
        if not short.any():
            return size, np.ones_like(short)
        size[short] /= 2
    size[short] = 0.0
    return size, ~short
