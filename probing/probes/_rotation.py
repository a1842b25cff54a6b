"""The eigenbasis of a design's Gram matrix: one decomposition serves every strength."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Rotation(NamedTuple):
    """A design in the eigenbasis of its Gram matrix: ``design · basis = rotated``, rank = min(row, channel).

    Attributes:
        rotated: Rotated design; ``rotated' · rotated / rows`` is diagonal.
        basis: Orthonormal columns; coefficients of the design are ``basis ·`` those of the rotated design.
        spectrum: The diagonal.
    """

    rotated: Float[np.ndarray, "row rank"]
    basis: Float[np.ndarray, "channel rank"]
    spectrum: Float[np.ndarray, " rank"]


def rotate(design: Float[np.ndarray, "row channel"]) -> Rotation:
    """Rotate a design into the eigenbasis of its Gram matrix.

    A design with more channels than rows is rotated within the span of its rows.
    """
    rows, channels = design.shape
    if channels > rows:
        span, triangle = np.linalg.qr(design.T)
        inner = rotate(np.ascontiguousarray(triangle.T))
        return Rotation(inner.rotated, span @ inner.basis, inner.spectrum)
    spectrum, basis = np.linalg.eigh(design.T @ design / rows)
    return Rotation(design @ basis, basis, np.maximum(spectrum, 0.0))
