"""Tokens to vectors, on the device and in float32.

Image reductions take (item, token, channel) with tokens in rows of the grid. Text reductions use real tokens only,
never padding, and reduce each part of the text by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probing.features.settings import POOLED


def reduce_image(
    tokens: Float[Tensor, "item token channel"], grid: tuple[int, int], names: Sequence[str]
) -> dict[str, Tensor]:
    """Reduce image tokens.

    Args:
        tokens: Features of one block, or latents laid out as tokens.
        grid: Rows and columns; their product is the number of tokens.
        names: Of :data:`REDUCTIONS`. ``mean``, ``std`` (population) and ``max`` give (item, channel);
            ``grid4`` (item, 16, channel), means over a 4×4 grid in reading order; ``tokens`` all of them.
    """
    if tokens.shape[1] != grid[0] * grid[1]:
        raise ValueError(f"A grid of {grid[0]}×{grid[1]} has {grid[0] * grid[1]} tokens, got {tokens.shape[1]}.")
    tokens = tokens.float()
    reduced: dict[str, Tensor] = {}
    for name in names:
        if name == "grid4":
            cells = tokens.transpose(1, 2).unflatten(2, grid)
            reduced[name] = torch.nn.functional.adaptive_avg_pool2d(cells, 4).flatten(2).transpose(1, 2)
        elif name == "tokens":
            reduced[name] = tokens
        else:
            reduced[name] = _pool(tokens, name)
    return reduced


def reduce_text(
    tokens: Float[Tensor, "item token channel"], parts: Mapping[str, Bool[Tensor, "item token"]], names: Sequence[str]
) -> dict[str, Tensor]:
    """Reduce text tokens to ``<reduction>_<part>``, (item, channel), over the part's real tokens; ``tokens`` keeps all.

    Args:
        tokens: Features of one block.
        parts: Where each part's real tokens are; every item has at least one.
        names: Of :data:`REDUCTIONS`; ``grid4`` is left out: text has no grid.
    """
    tokens = tokens.float()
    reduced: dict[str, Tensor] = {}
    for name in names:
        if name == "tokens":
            reduced[name] = tokens
        for part, real in parts.items() if name in POOLED else ():
            reduced[f"{name}_{part}"] = _pool_masked(tokens, real, name)
    return reduced


def _pool(tokens: Tensor, name: str) -> Tensor:
    if name == "mean":
        return tokens.mean(dim=1)
    if name == "std":
        return tokens.std(dim=1, correction=0)
    return tokens.amax(dim=1)


def _pool_masked(tokens: Tensor, real: Tensor, name: str) -> Tensor:
    mask = real.unsqueeze(-1)
    if name == "max":
        return tokens.masked_fill(~mask, -torch.inf).amax(dim=1)
    count = mask.sum(dim=1)
    mean = torch.where(mask, tokens, 0.0).sum(dim=1) / count
    if name == "mean":
        return mean
    return torch.where(mask, (tokens - mean.unsqueeze(1)).square(), 0.0).sum(dim=1).div(count).sqrt()
