"""The bulk of a descent, in single precision: preconditioned conjugate gradients of many logistic problems at once.

A step costs two matrix products for all columns together; the search along it none, since margins are linear in it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from probing.probes.base import log_loss
from probing.probes.device_rows import DeviceRows
from probing.probes.preconditioner import Preconditioner

_STEPS = 30
_RENEWAL = 8
"""Steps after which the preconditioner is fitted to the curvature that was met."""
_TRIALS, _FLAT = 8, 0.1
"""Of the search along a step: how many, and the share of the first slope that ends it."""
_ROWS_AT_ONCE = 2048
"""So that a block's margins stay in the cache, and columns to which a whole fold's rows weigh nothing skip them."""


def descend(
    x: Float[np.ndarray, "pair k"] | DeviceRows,
    gram: Float[np.ndarray, "k k"],
    targets: Float[np.ndarray, " pair"],
    weights: Float[np.ndarray, "pair column"],
    alphas: Float[np.ndarray, " column"],
    b: Float[np.ndarray, "k column"],
    tolerance: float,
) -> np.ndarray:
    """Move columns of ``b`` to their optimum, in place; return which did not reach it in a few dozen steps.

    Directions are Polak and Ribière's, never uphill; the preconditioner is the label-free bound of the Hessian.

    Args:
        x: The design, in single precision.
        gram: ``x' · x / pairs``.
        targets: As of :func:`probing.probes.solver.solve`, and so the next two.
        weights: Of each pair in each column.
        alphas: Strengths.
        b: Coefficients, moved in place.
        tolerance: A column is done when what is left to gain is estimated at this share of its objective.
    """
    columns = np.arange(len(alphas))
    y, w = targets[:, None].astype(x.dtype), weights.astype(x.dtype)
    blocks = _blocks(w)
    m = _times(x, b, blocks)
    preconditioner = Preconditioner(gram, alphas)
    old: tuple[np.ndarray, ...] = ()
    for step in range(_STEPS):
        gradient, objective, curvature = _gradient(x, y, w, m, blocks)
        here, a = b[:, columns], alphas[columns]
        gradient += a * here
        objective += a / 2 * (here**2).sum(axis=0)
        if step and step % _RENEWAL == 0 and preconditioner.far_from(curvature):
            preconditioner, old = Preconditioner(gram, a, curvature), ()
        towards = preconditioner(gradient)
        power = (gradient * towards).sum(axis=0)
        # Half of it is what a quadratic with the preconditioner's curvature would gain; the mean curvature is less,
        # and that along b less than the mean.
        unfinished = power * preconditioner.curvature > tolerance * objective * curvature
        if not unfinished.any():
            return columns[:0]
        if not unfinished.all():
            columns, w, m = columns[unfinished], w[:, unfinished], np.ascontiguousarray(m[:, unfinished])
            gradient, towards, power, here, a = (v[..., unfinished] for v in (gradient, towards, power, here, a))
            old = tuple(v[..., unfinished] for v in old)
            preconditioner = preconditioner.of(unfinished)
            blocks = _blocks(w)
        direction = -towards
        if old:
            before, power_before, direction_before = old
            turn = np.maximum(power - (before * towards).sum(axis=0), 0) / power_before
            direction += turn * direction_before
            uphill = (direction * gradient).sum(axis=0) >= 0
            direction[:, uphill] = -towards[:, uphill]
        old = gradient, power, direction
        slope = (direction * gradient).sum(axis=0)
        along = _times(x, direction, blocks)
        bend = a * (direction**2).sum(axis=0)
        size = _search(y, w, m, along, slope, a * (here * direction).sum(axis=0), bend, blocks)
        b[:, columns] = here + size * direction
        along *= size.astype(x.dtype)
        m += along
    return columns


class _Block(NamedTuple):
    """Rows that stand together, and the columns in which any of them weighs something."""

    rows: slice
    columns: np.ndarray | slice


def _blocks(weights: Float[np.ndarray, "pair column"]) -> list[_Block]:
    found = []
    for start in range(0, len(weights), _ROWS_AT_ONCE):
        rows = slice(start, min(start + _ROWS_AT_ONCE, len(weights)))
        used = weights[rows].any(axis=0)
        found.append(_Block(rows, slice(None) if used.all() else np.flatnonzero(used)))
    return found


def _times(
    x: Float[np.ndarray, "pair k"] | DeviceRows, b: Float[np.ndarray, "k column"], blocks: list[_Block]
) -> Float[np.ndarray, "pair column"]:
    """Return x·b where it weighs something, and 0 elsewhere."""
    product = np.zeros((len(x), b.shape[1]), dtype=x.dtype)
    if b.any():
        b = b.astype(x.dtype)
        for rows, columns in blocks:
            product[rows, columns] = x[rows] @ b[:, columns]
    return product


def _gradient(
    x: Float[np.ndarray, "pair k"] | DeviceRows,
    y: Float[np.ndarray, "pair 1"],
    w: Float[np.ndarray, "pair column"],
    m: Float[np.ndarray, "pair column"],
    blocks: list[_Block],
) -> tuple[Float[np.ndarray, "k column"], Float[np.ndarray, " column"], Float[np.ndarray, " column"]]:
    """Give the gradient of the mean loss, the mean loss, and the mean of its second derivatives by the margins."""
    gradient = np.zeros((x.shape[1], w.shape[1]))
    loss, curvature = np.zeros(w.shape[1]), np.zeros(w.shape[1])
    for rows, columns in blocks:
        here, weight, target = m[rows, columns], w[rows, columns], y[rows]
        loss[columns] += (weight * log_loss(here, target)).sum(axis=0)
        # σ(m) = (1 + tanh(m/2)) / 2, and its slope (1 − tanh²(m/2)) / 4.
        bent = np.tanh(here / 2)
        curvature[columns] += (weight * (1 - bent**2)).sum(axis=0) / 4
        bent /= 2
        bent += x.dtype.type(0.5) - target
        bent *= weight
        gradient[:, columns] += x[rows].T @ bent
    return gradient, loss, curvature


def _search(
    y: Float[np.ndarray, "pair 1"],
    w: Float[np.ndarray, "pair column"],
    m: Float[np.ndarray, "pair column"],
    along: Float[np.ndarray, "pair column"],
    slope: Float[np.ndarray, " column"],
    pull: Float[np.ndarray, " column"],
    bend: Float[np.ndarray, " column"],
    blocks: list[_Block],
) -> Float[np.ndarray, " column"]:
    """Find each column's step at which its slope has all but gone, by Newton's method between known ends.

    Args:
        y: Targets.
        w: Weights.
        m: Margins.
        along: What a step of 1 adds to them.
        slope: Of the objective at 0, below 0.
        pull: Slope of the penalty at 0.
        bend: Second derivative of the penalty.
        blocks: Of rows.
    """
    size, low, high = np.ones_like(slope), np.zeros_like(slope), np.full_like(slope, np.inf)
    for _ in range(_TRIALS):
        first, second = pull + size * bend, bend.copy()
        for rows, columns in blocks:
            step, weight = along[rows, columns], w[rows, columns]
            moved = np.tanh((m[rows, columns] + size[columns].astype(m.dtype) * step) / 2)
            weight = weight * step
            first[columns] += (weight * (moved / 2 + (m.dtype.type(0.5) - y[rows]))).sum(axis=0)
            second[columns] += (weight * step * (1 - moved**2)).sum(axis=0) / 4
        short = np.abs(first) > _FLAT * np.abs(slope)
        if not short.any():
            break
        low, high = np.where(first < 0, size, low), np.where(first < 0, high, size)
        new = np.minimum(size - first / np.maximum(second, np.finfo(np.float64).tiny), 4 * size)
        middle = np.where(np.isinf(high), 4 * size, (low + high) / 2)
        size = np.where(short, np.where((new > low) & (new < high), new, middle), size)
    return size
