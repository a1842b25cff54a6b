"""L2-penalised logistic regression without intercept, for many columns over one design at once.

Folds, strengths and resamples are columns of one problem: they share the design, so every product with it is one
matrix product, where a loop over fits reads the whole design for each. Each column descends by conjugate gradients
(Polak and Ribière's, never uphill), preconditioned by the label-free bound of its Hessian, whose Gram matrix is formed
once. A step costs two products; the search along it none, since margins are linear in it. Products are in single
precision until what is left to gain is a billionth of the objective, then in double if more is asked.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning

from probing.probes.preconditioner import Preconditioner

_SINGLE = 1e-9
"""Relative distance from the optimum down to which single precision is trusted."""
_STEPS_IN_SINGLE, _STEPS_IN_DOUBLE = 30, 600
_RENEWAL = 15
"""Steps after which the preconditioner is remade from the curvature that was met; easy columns end before."""
_TRIALS, _FLAT = 8, 0.1
"""Of the search along a step: how many, and the share of the first slope that ends it."""
_ROWS_AT_ONCE = 2048
"""So that a block's margins stay in the cache, and columns to which a whole fold's rows weigh nothing skip them."""


class Design(NamedTuple):
    """A design made ready for :func:`solve`; rank k = min(pair, channel).

    Attributes:
        rows: (pair, k), the design, or its rows' coordinates in ``span``.
        span: (channel, k), an orthonormal basis of the rows where there are more channels than pairs, else None.
        single: ``rows`` in single precision.
        gram: (k, k), ``rows' · rows / pairs``, in single precision.
    """

    rows: Float[np.ndarray, "pair k"]
    span: Float[np.ndarray, "channel k"] | None
    single: Float[np.ndarray, "pair k"]
    gram: Float[np.ndarray, "k k"]

    def coefficients(self, found: Float[np.ndarray, "k column"]) -> Float[np.ndarray, "channel column"]:
        """Turn what :func:`solve` returns into coefficients of the design's channels."""
        return found if self.span is None else self.span @ found


def prepare(design: Float[np.ndarray, "pair channel"]) -> Design:
    """Make a design ready: reduce it to the span of its rows, and form its Gram matrix.

    Coefficients outside the span of the rows only cost penalty, so a design with more channels than pairs loses
    nothing by being reduced to that span first.
    """
    pairs, channels = design.shape
    span = None
    if channels > pairs:
        span, triangle = np.linalg.qr(design.T)
        design = np.ascontiguousarray(triangle.T)
    single = design.astype(np.float32)
    gram = single.T @ single
    gram /= np.float32(pairs)
    return Design(design, span, single, gram)


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
    tolerance: float = 1e-6,
) -> Float[np.ndarray, "k column"]:
    """Minimise, for every column c, sum_i weights[i, c] · loss(x_i'b, y_i) + alphas[c]/2 · ||b||².

    Rows that weigh nothing in a column are skipped where they lie together: sort rows by fold.

    Args:
        design: Whose rows are x.
        targets: y in [0, 1].
        weights: Non-negative, each column summing to 1; 0 leaves a pair out.
        alphas: L2 strengths, above 0.
        start: Where to start; zeros if not given.
        tolerance: A column is done when what is left to gain is estimated at this share of its objective.

    Returns:
        Coefficients of ``design.rows``; :meth:`Design.coefficients` makes them those of channels.

    Warns:
        ConvergenceWarning: Columns that stopped short of the tolerance.
    """
    b = np.zeros((design.rows.shape[1], len(alphas))) if start is None else start.astype(np.float64)
    preconditioner = Preconditioner(design.gram, alphas)
    # Columns that single precision cannot bring to its own tolerance are finished in double.
    left = _descend(design, design.single, targets, weights, alphas, b, preconditioner, max(tolerance, _SINGLE),
                    _STEPS_IN_SINGLE, np.arange(len(alphas)))  # fmt: skip
    if tolerance < _SINGLE:
        left = np.arange(len(alphas))
    if len(left):
        left = _descend(design, design.rows, targets, weights, alphas, b, preconditioner, tolerance,
                        _STEPS_IN_DOUBLE, left)  # fmt: skip
    if len(left):
        warnings.warn(
            f"{len(left)} of {len(alphas)} logistic fits stopped after {_STEPS_IN_DOUBLE} steps; "
            f"raise the smallest alpha.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return b


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


def _descend(
    design: Design,
    x: Float[np.ndarray, "pair k"],
    targets: Float[np.ndarray, " pair"],
    weights: Float[np.ndarray, "pair column"],
    alphas: Float[np.ndarray, " column"],
    b: Float[np.ndarray, "k column"],
    preconditioner: Preconditioner,
    tolerance: float,
    steps: int,
    columns: np.ndarray,
) -> np.ndarray:
    """Move some columns of ``b`` to their optimum, in the precision of ``x``; return those that did not reach it."""
    y = targets[:, None].astype(x.dtype)
    w = weights[:, columns].astype(x.dtype)
    blocks = _blocks(w)
    m = _times(x, b[:, columns], blocks)
    old: tuple[np.ndarray, ...] = ()
    for step in range(steps):
        gradient, objective, curvature = _gradient(x, y, w, m, blocks)
        here, a = b[:, columns], alphas[columns]
        gradient += a * here
        objective += a / 2 * (here**2).sum(axis=0)
        if step and step % _RENEWAL == 0:
            preconditioner.renew(design.single, w * _slopes(m), alphas, columns)
            old = ()
        towards, bound = preconditioner(gradient, columns)
        power = (gradient * towards).sum(axis=0)
        # Half of it is what a quadratic with the preconditioner's curvature would gain; the mean curvature is less,
        # and that along b less than the mean.
        unfinished = power * bound > tolerance * objective * curvature
        if not unfinished.all():
            if not unfinished.any():
                return columns[:0]
            columns, w, m = columns[unfinished], w[:, unfinished], np.ascontiguousarray(m[:, unfinished])
            gradient, towards, power, here, a = (v[..., unfinished] for v in (gradient, towards, power, here, a))
            old = tuple(v[..., unfinished] for v in old)
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


def _times(
    x: Float[np.ndarray, "pair k"], b: Float[np.ndarray, "k column"], blocks: list[_Block]
) -> Float[np.ndarray, "pair column"]:
    """Return x·b where it weighs something, and 0 elsewhere."""
    product = np.zeros((len(x), b.shape[1]), dtype=x.dtype)
    if b.any():
        b = b.astype(x.dtype)
        for rows, columns in blocks:
            product[rows, columns] = x[rows] @ b[:, columns]
    return product


def _gradient(
    x: Float[np.ndarray, "pair k"],
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


def _slopes(m: Float[np.ndarray, "pair column"]) -> Float[np.ndarray, "pair column"]:
    return (1 - np.tanh(m / 2) ** 2) / 4


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
