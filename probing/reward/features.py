"""The features of a head: those of its sites, side by side as channels or as tokens."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probing.analysis.engine import FeatureSource, Site, read_site
from probing.errors import UserError
from probing.probes import AttentionProbe, Probe

IN_MEMORY = 4 * 2**30
"""Bytes of features that are held in memory; more are written side by side to a file that is mapped."""


def side_by_side(features: Mapping[Site, Tensor], sites: Sequence[Site], *, tokens: bool) -> Tensor:
    """Join the features of a batch.

    Args:
        features: Of each site: (item, channel), or (item, token, channel).
        sites: In the order of the head.
        tokens: Join as tokens, (item, token, channel), for attention; else as channels, (item, channel).

    Returns:
        Float32, on the device of the features.
    """
    if tokens:
        return torch.cat([f if (f := features[site].float()).ndim == 3 else f[:, None] for site in sites], dim=1)
    return torch.cat([features[site].float().flatten(1) for site in sites], dim=1)


def wants_tokens(probe: Probe) -> bool:
    """Return whether a probe takes tokens."""
    return isinstance(probe, AttentionProbe)


def sizes_of(store: FeatureSource, sites: Sequence[Site], *, tokens: bool) -> tuple[list[int], tuple[int, ...]]:
    """Return the number of channels (or tokens) of each site, and the shape of what follows."""
    shapes = {site[:2]: _arranged(read_site(store, site), tokens).shape[1:] for site in reversed(sites)}
    return [shapes[site[:2]][0] for site in sites], shapes[sites[0][:2]][1:]


def stored_features(
    store: FeatureSource, sites: Sequence[Site], *, tokens: bool, in_memory: int = IN_MEMORY
) -> Float[np.ndarray, "item ..."]:
    """Read the features of a head's sites for all items of a store.

    Args:
        store: The store.
        sites: In the order of the head.
        tokens: As for :func:`side_by_side`.
        in_memory: Largest size in bytes that is held in memory; more is a map of a temporary file, which networks
            read batch by batch.

    Raises:
        UserError: The store lacks a site, or sites do not fit side by side.
    """
    sizes, rest = sizes_of(store, sites, tokens=tokens)
    shape = (len(store.item_ids), sum(sizes), *rest)
    joined: np.ndarray
    if 4 * int(np.prod(shape)) <= in_memory:
        joined = np.empty(shape, np.float32)
    else:
        with tempfile.NamedTemporaryFile(prefix="head-features-", suffix=".f32") as file:
            joined = np.memmap(Path(file.name), np.float32, "w+", shape=shape)
    start = 0
    for site, size in zip(sites, sizes, strict=True):
        values = _arranged(read_site(store, site), tokens)
        if values.shape[1:] != (size, *rest):
            raise UserError(f"{site} has features of shape {values.shape[1:]}, which do not stand beside the others.")
        joined[:, start : start + size] = values
        start += size
    return joined


def _arranged(features: Float[np.ndarray, "item ..."], tokens: bool) -> np.ndarray:
    if not tokens:
        return features.reshape(len(features), -1)
    return features if features.ndim == 3 else features[:, None]
