"""Preconditioned conjugate gradients in single precision, for many logistic problems at once.

A step costs two matrix products for all columns together; the line search costs none, since margins are linear in the
step size.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from probing.probes._base import log_loss
from probing.probes._disk import DiskRows
from probing.probes._solver._columns import Matrix, Weights, select, zeros
from probing.probes._solver._device_rows import DeviceRows
from probing.probes._solver._preconditioner import Preconditioner

_STEPS = 30
_RENEWAL = 8
"""Number of steps between updates of the preconditioner to the current curvature."""
_TRIALS, _FLAT = 8, 0.1
"""Line search: largest number of trials, and the share of the initial slope at which it ends."""
_ROWS_AT_ONCE = 2048
"""Rows of a block: its margins fit in the cache, and columns without weight in it skip it."""


def descend(
    x: Float[np.ndarray, "pair k"] | DeviceRows | DiskRows,
    gram: Float[np.ndarray, "k k"],
    targets: Float[np.ndarray, " pair"],
    weights: Weights,
    alphas: Float[np.ndarray, " column"],
    b: Float[np.ndarray, "k column"],
    tolerance: float,
) -> Int[np.ndarray, " remaining"]:
    """Move columns of ``b`` to their optimum, in place; return the columns that did not reach it in a few dozen steps.

    Directions are Polak and Ribière's, restarted where they would ascend; the preconditioner starts as a bound of the
    Hessian that does not depend on labels.

    Args:
        x: The design, in single precision.
        gram: ``x' · x / pairs``.
        targets: As in :func:`probing.probes._solver.solve`.
        weights: As there.
        alphas: As there.
        b: Coefficients, changed in place.
        tolerance: A column is done when the estimated remaining decrease is this share of its objective.
    """
    columns = np.arange(len(alphas))
    y, w = targets[:, None].astype(x.dtype), weights.astype(x.dtype)
    blocks = _blocks(w)
    m = _times(x, b, blocks)
    preconditioner = Preconditioner(gram, alphas)
    previous: tuple[np.ndarray, ...] = ()
    for step in range(_STEPS):
        gradient, objective, curvature = _gradient(x, y, w, m, blocks)
        current, a = b[:, columns], alphas[columns]
        gradient += a * current
        objective += a / 2 * (current**2).sum(axis=0)
        if step and step % _RENEWAL == 0 and preconditioner.far_from(curvature):
            preconditioner, previous = Preconditioner(gram, a, curvature), ()
        conditioned = preconditioner(gradient)
        power = (gradient * conditioned).sum(axis=0)
        # Half of the power is the decrease of a quadratic with the preconditioner's curvature. The mean curvature is
        # smaller, and the curvature along b smaller than the mean.
        unfinished = power * preconditioner.curvature > tolerance * objective * curvature
        if not unfinished.any():
            return columns[:0]
        if not unfinished.all():
            columns, w, m = columns[unfinished], select(w, unfinished), select(m, unfinished)
            gradient, conditioned, power, current, a = (
                v[..., unfinished] for v in (gradient, conditioned, power, current, a)
            )
            previous = tuple(v[..., unfinished] for v in previous)
            preconditioner = preconditioner.select(unfinished)
            blocks = _blocks(w)
        direction = -conditioned
        if previous:
            gradient_before, power_before, direction_before = previous
            beta = np.maximum(power - (gradient_before * conditioned).sum(axis=0), 0) / power_before
            direction += beta * direction_before
            ascent = (direction * gradient).sum(axis=0) >= 0
            direction[:, ascent] = -conditioned[:, ascent]
        previous = gradient, power, direction
        slope = (direction * gradient).sum(axis=0)
        along = _times(x, direction, blocks)
        penalty_curvature = a * (direction**2).sum(axis=0)
        penalty_slope = a * (current * direction).sum(axis=0)
        size = _search(y, w, m, along, slope, penalty_slope, penalty_curvature, blocks)
        b[:, columns] = current + size * direction
        for rows, _ in blocks:
            m[rows] += along[rows] * size.astype(x.dtype)
        del along
    return columns


class _Block(NamedTuple):
    """Contiguous rows, and the columns in which any of them has weight."""

    rows: slice
    columns: Int[np.ndarray, " used"] | slice


def _blocks(weights: Weights) -> list[_Block]:
    blocks = []
    for start in range(0, len(weights), _ROWS_AT_ONCE):
        rows = slice(start, min(start + _ROWS_AT_ONCE, len(weights)))
        used = weights[rows].any(axis=0)
        blocks.append(_Block(rows, slice(None) if used.all() else np.flatnonzero(used)))
    return blocks


def _times(
    x: Float[np.ndarray, "pair k"] | DeviceRows | DiskRows, b: Float[np.ndarray, "k column"], blocks: list[_Block]
) -> Matrix:
    """Return x·b in the blocks' columns, and 0 elsewhere."""
    product = zeros(x, b.shape[1], x.dtype)
    if b.any():
        b = b.astype(x.dtype)
        for rows, columns in blocks:
            values = np.zeros((rows.stop - rows.start, b.shape[1]), dtype=x.dtype)
            values[:, columns] = x[rows] @ b[:, columns]
            product[rows] = values
    return product


def _gradient(
    x: Float[np.ndarray, "pair k"] | DeviceRows | DiskRows,
    y: Float[np.ndarray, "pair 1"],
    w: Weights,
    m: Matrix,
    blocks: list[_Block],
) -> tuple[Float[np.ndarray, "k column"], Float[np.ndarray, " column"], Float[np.ndarray, " column"]]:
    """Return the gradient of the mean loss, the mean loss, and the mean of its second derivatives by the margins."""
    gradient = np.zeros((x.shape[1], w.shape[1]))
    loss, curvature = np.zeros(w.shape[1]), np.zeros(w.shape[1])
    for rows, columns in blocks:
        margins, weight, target = m[rows][:, columns], w[rows][:, columns], y[rows]
        loss[columns] += (weight * log_loss(margins, target)).sum(axis=0)
        # σ(m) = (1 + tanh(m/2)) / 2, and its derivative (1 − tanh²(m/2)) / 4.
        tanh = np.tanh(margins / 2)
        curvature[columns] += (weight * (1 - tanh**2)).sum(axis=0) / 4
        # In place, from tanh to the derivative of the weighted loss by the margins.
        tanh /= 2
        tanh += x.dtype.type(0.5) - target
        tanh *= weight
        gradient[:, columns] += x[rows].T @ tanh
    return gradient, loss, curvature


def _search(
    y: Float[np.ndarray, "pair 1"],
    w: Weights,
    m: Matrix,
    along: Matrix,
    slope: Float[np.ndarray, " column"],
    penalty_slope: Float[np.ndarray, " column"],
    penalty_curvature: Float[np.ndarray, " column"],
    blocks: list[_Block],
) -> Float[np.ndarray, " column"]:
    """Find each column's step size at which its slope is nearly 0, by Newton's method safeguarded by bisection.

    Args:
        y: Targets.
        w: Weights.
        m: Margins.
        along: Change of the margins by a step of size 1.
        slope: Slope of the objective at 0, below 0.
        penalty_slope: Slope of the penalty at 0.
        penalty_curvature: Second derivative of the penalty.
        blocks: Blocks of rows.
    """
    size, low, high = np.ones_like(slope), np.zeros_like(slope), np.full_like(slope, np.inf)
    for _ in range(_TRIALS):
        first, second = penalty_slope + size * penalty_curvature, penalty_curvature.copy()
        for rows, columns in blocks:
            step, weight = along[rows][:, columns], w[rows][:, columns]
            tanh = np.tanh((m[rows][:, columns] + size[columns].astype(m.dtype) * step) / 2)
            weight = weight * step
            first[columns] += (weight * (tanh / 2 + (tanh.dtype.type(0.5) - y[rows]))).sum(axis=0)
            second[columns] += (weight * step * (1 - tanh**2)).sum(axis=0) / 4
        steep = np.abs(first) > _FLAT * np.abs(slope)
        if not steep.any():
            break
        low, high = np.where(first < 0, size, low), np.where(first < 0, high, size)
        new = np.minimum(size - first / np.maximum(second, np.finfo(np.float64).tiny), 4 * size)
        middle = np.where(np.isinf(high), 4 * size, (low + high) / 2)
        size = np.where(steep, np.where((new > low) & (new < high), new, middle), size)
    return size
