"""Feature scalings by name, estimated from training differences alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from probing.probes._base import largest_values, root_mean_square
from probing.probes._disk import DiskRows
from probing.probes._rotation import rotate

SCALINGS = ("raw", "standard", "whiten", "mask-massive")
MASSIVE = 20.0
"""Ratio to the median channel from which a channel is massive (Sun et al. 2024 use a larger one, for single tokens)."""
_SHRINKAGE = 1e-3


@dataclass(frozen=True)
class Scaling:
    """A linear map of features: division by channel, then an optional rotation.

    Attributes:
        scale: Divisor of each channel; infinity removes a channel.
        rotation: Matrix that multiplies the divided features, or None.
    """

    scale: Float[np.ndarray, " channel"]
    rotation: Float[np.ndarray, "channel rank"] | None = None

    def apply(self, X: Float[np.ndarray, "row channel"] | DiskRows) -> Float[np.ndarray, "row mapped"] | DiskRows:
        """Map features."""
        if isinstance(X, DiskRows):
            assert self.rotation is None, "find_scaling rotates no features on disk"
            return X.divided(self.scale)
        mapped: Float[np.ndarray, "row mapped"] = X / self.scale
        return mapped if self.rotation is None else mapped @ self.rotation

    def back(self, coefficients: Float[np.ndarray, " mapped"]) -> Float[np.ndarray, " channel"]:
        """Convert coefficients of mapped features into coefficients of the original features."""
        divided = coefficients if self.rotation is None else self.rotation @ coefficients
        original: Float[np.ndarray, " channel"] = divided / self.scale
        return original


def find_scaling(
    name: str, X: Float[np.ndarray, "pair channel"] | DiskRows, weights: Float[np.ndarray, " pair"]
) -> Scaling:
    """Estimate a scaling from training differences. Nothing is centred, so swapping a pair's sides changes nothing.

    Args:
        name: ``raw`` (divide all channels by their common root mean square, so that strengths are comparable),
            ``standard`` (divide each channel by its root mean square), ``whiten`` (standard, then decorrelate, shrunk
            by a thousandth of the mean variance), or ``mask-massive`` (raw, without channels of more than
            :data:`MASSIVE` times the median channel's root mean square).
        X: Differences.
        weights: Weights, summing to 1.

    Raises:
        ValueError: Unknown name, or ``whiten`` of features on disk.
    """
    if name not in SCALINGS:
        raise ValueError(f"Unknown scaling {name!r}; known are {', '.join(SCALINGS)}, and auto.")
    scale = root_mean_square(X, weights)
    if name == "standard":
        return Scaling(scale)
    if name == "whiten":
        if isinstance(X, DiskRows):
            raise ValueError("whiten rotates features, and these do not fit into memory; use another scaling.")
        rotation = rotate(X / scale * np.sqrt(len(X) * weights)[:, None])
        spread = np.sqrt(rotation.spectrum + _SHRINKAGE * rotation.spectrum.sum() / X.shape[1])
        return Scaling(scale, rotation.basis / np.where(spread > 0, spread, 1.0))
    varies = largest_values(X) > 0
    massive = np.zeros(X.shape[1], dtype=bool)
    if name == "mask-massive" and varies.any():
        massive = varies & (scale > MASSIVE * np.median(scale[varies]))
    keep = varies & ~massive
    common = float(np.sqrt(np.mean(scale[keep] ** 2))) if keep.any() else 1.0
    return Scaling(np.where(massive, np.inf, common))
