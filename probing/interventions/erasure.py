"""Least-squares concept erasure (LEACE; Belrose et al. 2023): no linear probe reads a label, at the least change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_SMALLEST = 1e-10
"""Share of the largest variance below which a direction counts as constant."""


@dataclass(frozen=True)
class Eraser:
    """The map x ↦ x − matrix · (x − mean).

    Attributes:
        matrix: (channel, channel), of the rank of the labels.
        mean: (channel,).
    """

    matrix: Float[np.ndarray, "channel channel"]
    mean: Float[np.ndarray, " channel"]

    def apply(self, features: Float[np.ndarray, "row channel"]) -> Float[np.ndarray, "row channel"]:
        """Erase the labels from features."""
        erased: Float[np.ndarray, "row channel"] = features - (features - self.mean) @ self.matrix.T
        return erased


def fit_eraser(
    features: Float[np.ndarray, "row channel"], labels: Float[np.ndarray, "row label"] | Float[np.ndarray, " row"]
) -> Eraser:
    """Find the map that makes the covariance of features and labels zero and moves the features least.

    With the covariances Σ of the features and C of features and labels, the whitening W = Σ^(−1/2) and the orthogonal
    projection P on the columns of W·C, the matrix is W⁺·P·W. A probe of any strength, fitted anew, then reads no label.
    For pairs, give the differences of two items and their choices: the map of items is the same, for what a
    difference erases its two items do.

    Args:
        features: Features of items, or differences of pairs.
        labels: Labels of each row, such as choices.

    Raises:
        ValueError: Other numbers of rows, fewer than two, or values that are not finite.
    """
    x, z = np.asarray(features, dtype=np.float64), np.asarray(labels, dtype=np.float64).reshape(len(labels), -1)
    if len(x) != len(z) or len(x) < 2:
        raise ValueError(f"Got {len(x)} rows of features and {len(z)} of labels, expected as many, and at least two.")
    if not (np.isfinite(x).all() and np.isfinite(z).all()):
        raise ValueError("Got features or labels that are not finite.")
    mean = x.mean(axis=0)
    x, z = x - mean, z - z.mean(axis=0)
    variances, basis = np.linalg.eigh(x.T @ x / len(x))
    kept = variances > _SMALLEST * max(variances.max(), np.finfo(np.float64).tiny)
    basis, deviations = basis[:, kept], np.sqrt(variances[kept])
    whitened = basis.T @ (x.T @ z / len(x)) / deviations[:, None]
    columns, sizes, _ = np.linalg.svd(whitened, full_matrices=False)
    columns = columns[:, sizes > np.sqrt(_SMALLEST) * max(sizes.max(initial=0.0), np.finfo(np.float64).tiny)]
    projected = columns @ columns.T
    matrix = (basis * deviations) @ projected @ (basis / deviations).T
    return Eraser(matrix, mean)
