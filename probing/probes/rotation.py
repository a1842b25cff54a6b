"""A design in the eigenbasis of its Gram matrix, where one decomposition serves every strength."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


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
