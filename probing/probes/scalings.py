"""Feature scalings by name, found on training differences alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from probing.probes.base import root_mean_square
from probing.probes.rotation import rotate

SCALINGS = ("raw", "standard", "whiten", "mask-massive")
MASSIVE = 20.0
"""A channel is massive if it is so many times the median channel (Sun et al. 2024 ask for more, of single tokens)."""
_SHRINKAGE = 1e-3


@dataclass(frozen=True)
class Scaling:
    """A linear map of features; ``back`` turns coefficients of mapped features into those of features as they are.

    Attributes:
        scale: What each channel is divided by; infinity takes a channel out.
        rotation: What they are then multiplied by, (channel, rank), or None.
    """

    scale: Float[np.ndarray, " channel"]
    rotation: Float[np.ndarray, "channel rank"] | None = None

    def apply(self, X: Float[np.ndarray, "row channel"]) -> Float[np.ndarray, "row mapped"]:
        mapped = X / self.scale
        return mapped if self.rotation is None else mapped @ self.rotation

    def back(self, coefficients: Float[np.ndarray, " mapped"]) -> Float[np.ndarray, " channel"]:
        return (coefficients if self.rotation is None else self.rotation @ coefficients) / self.scale


def find_scaling(name: str, X: Float[np.ndarray, "pair channel"], weights: Float[np.ndarray, " pair"]) -> Scaling:
    """Find a scaling of training differences; nothing is centred, so that swapping a pair's sides changes nothing.

    Args:
        name: ``raw`` (all channels divided by one number, their common root mean square, so that strengths mean the
            same), ``standard`` (each by its own), ``whiten`` (standard, then uncorrelated, shrunk by a thousandth of
            the mean variance), ``mask-massive`` (raw, without channels of more than :data:`MASSIVE` times the median
            channel's root mean square).
        X: Differences.
        weights: (pair,), summing to 1.

    Raises:
        ValueError: Unknown name.
    """
    if name not in SCALINGS:
        raise ValueError(f"Unknown scaling {name!r}; known are {', '.join(SCALINGS)}, and auto.")
    own = root_mean_square(X, weights)
    if name == "standard":
        return Scaling(own)
    if name == "whiten":
        rotation = rotate(X / own * np.sqrt(len(X) * weights)[:, None])
        spread = np.sqrt(rotation.spectrum + _SHRINKAGE * rotation.spectrum.sum() / X.shape[1])
        return Scaling(own, rotation.basis / np.where(spread > 0, spread, 1.0))
    there = (X != 0).any(axis=0)
    massive = np.zeros(X.shape[1], dtype=bool)
    if name == "mask-massive" and there.any():
        massive = there & (own > MASSIVE * np.median(own[there]))
    left = there & ~massive
    common = float(np.sqrt(np.mean(own[left] ** 2))) if left.any() else 1.0
    return Scaling(np.where(massive, np.inf, common))
