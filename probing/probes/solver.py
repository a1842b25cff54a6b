"""L2-penalised logistic regression without intercept, for many columns over one design at once.

Folds, strengths and resamples are columns of one problem: they share the design, so every product with it is one
matrix product, where a loop over fits reads the whole design for each. The Gram matrix, which preconditions them all,
is formed once. Conjugate gradients in single precision go to a billionth of the objective; what is asked beyond that,
and columns that are hard, are left to Newton's method in double.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning

from probing.probes.descent import descend
from probing.probes.device_rows import DeviceRows, on_device
from probing.probes.newton import finish

_SINGLE = 1e-9
"""Relative distance from the optimum down to which single precision is trusted."""


class Design(NamedTuple):
    """A design made ready for :func:`solve`; rank k = min(pair, channel).

    Attributes:
        rows: (pair, k), the design, or its rows' coordinates in ``span``.
        span: (channel, k), an orthonormal basis of the rows where there are more channels than pairs, else None.
        single: ``rows`` in single precision, on an accelerator if so asked.
        gram: (k, k), ``rows' · rows / pairs``, in single precision.
    """

    rows: Float[np.ndarray, "pair k"]
    span: Float[np.ndarray, "channel k"] | None
    single: Float[np.ndarray, "pair k"] | DeviceRows
    gram: Float[np.ndarray, "k k"]

    def coefficients(self, found: Float[np.ndarray, "k column"]) -> Float[np.ndarray, "channel column"]:
        """Turn what :func:`solve` returns into coefficients of the design's channels."""
        return found if self.span is None else self.span @ found


def prepare(design: Float[np.ndarray, "pair channel"], device: str = "cpu") -> Design:
    """Make a design ready: reduce it to the span of its rows, and form its Gram matrix.

    Coefficients outside the span of the rows only cost penalty, so a design with more channels than pairs loses
    nothing by being reduced to that span first.

    Args:
        design: Rows of pairs.
        device: Where matrix products in single precision are made, as torch names it.

    Raises:
        ValueError: There is no such device.
    """
    pairs, channels = design.shape
    span = None
    if channels > pairs:
        span, triangle = np.linalg.qr(design.T)
        design = np.ascontiguousarray(triangle.T)
    rows = design.astype(np.float32)
    if device == "cpu":
        return Design(design, span, rows, rows.T @ rows / np.float32(pairs))
    there = on_device(rows, device)
    return Design(design, span, there, there.T @ there / np.float32(pairs))


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
    left = descend(design.single, design.gram, targets, weights, alphas, b, max(tolerance, _SINGLE))
    if tolerance < _SINGLE:
        left = np.arange(len(alphas))
    if len(left):
        left = left[~finish(design, targets, weights, alphas, b, left, tolerance)]
    if len(left):
        warnings.warn(
            f"{len(left)} of {len(alphas)} logistic fits stopped short of their optimum; raise the smallest alpha.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return b
