"""Noise that depends on (seed, key) alone, and the flow-matching noise level."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probing.features.settings import check_sigma


def item_noise(seed: int, key: str, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    """Draw standard normal noise for one item.

    The generator is NumPy's Philox, keyed by a hash of (seed, key): order of items, batch, worker and device do not
    change the bytes.
    """
    digest = hashlib.blake2b(f"{seed}\x1f{key}".encode(), digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
    return generator.standard_normal(shape, dtype=np.float32)


def add_noise(
    latents: Float[Tensor, "item channel row column"], noise: Float[Tensor, "item channel row column"], sigma: float
) -> Float[Tensor, "item channel row column"]:
    """Return x_σ = (1 − σ)·x0 + σ·ε, with σ as given: no scheduler shifts or snaps it.

    Raises:
        UserError: sigma is outside [0, 1].
    """
    check_sigma(sigma)
    return torch.lerp(latents, noise, sigma)
