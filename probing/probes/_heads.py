"""Neural reward heads for several seeds together: weights have a leading seed dimension, for batched products.

Seeds are independent: each has its own initial weights, batches and stopping, as if it were trained alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


class SeededLinear(nn.Module):
    """``nn.Linear`` with separate weights for each seed, initialised like ``nn.Linear``.

    The output layer has no bias: a constant of the reward cancels in every margin.
    """

    def __init__(self, generators: Sequence[torch.Generator], inside: int, outside: int, *, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inside)

        def draw(*shape: int) -> nn.Parameter:
            return nn.Parameter(
                torch.stack([torch.empty(shape).uniform_(-bound, bound, generator=g) for g in generators])
            )

        self.weight = draw(inside, outside)
        self.bias = draw(1, outside) if bias else None

    def forward(self, x: Float[Tensor, "seed row inside"]) -> Float[Tensor, "seed row outside"]:
        return torch.bmm(x, self.weight) if self.bias is None else torch.baddbmm(self.bias, x, self.weight)


class MLPHead(nn.Module):
    """Linear layers with GELU between them, from features to a reward."""

    def __init__(self, generators: Sequence[torch.Generator], shape: Sequence[int], hidden: Sequence[int]) -> None:
        super().__init__()
        widths = [math.prod(shape), *hidden]
        self.layers = nn.ModuleList([SeededLinear(generators, a, b) for a, b in itertools.pairwise(widths)])
        self.out = SeededLinear(generators, widths[-1], 1, bias=False)

    def forward(
        self, x: Float[Tensor, "seed row *shape"], padding: Bool[Tensor, "seed row *token"] | None = None
    ) -> Float[Tensor, "seed row"]:
        """Return rewards; ``padding`` has no effect."""
        x = x.flatten(2)
        for layer in self.layers:
            x = F.gelu(layer(x))
        rewards: Float[Tensor, "seed row"] = self.out(x)[..., 0]
        return rewards


class AttentionHead(nn.Module):
    """Learned queries attend to the tokens; a linear layer maps their outputs to a reward."""

    def __init__(
        self,
        generators: Sequence[torch.Generator],
        shape: Sequence[int],
        queries: int,
        width: int,
        heads: int,
        sources: Sequence[int],
    ) -> None:
        super().__init__()
        _, channels = shape
        self.heads = heads
        self.keys, self.values = (SeededLinear(generators, channels, width) for _ in range(2))
        self.queries, self.source = (
            nn.Parameter(torch.stack([torch.randn(size, width, generator=g) for g in generators]) / divisor)
            for size, divisor in ((queries, 1.0), (len(sources), math.sqrt(width)))
        )
        self.tokens_of = tuple(sources)
        self.out = SeededLinear(generators, queries * width, 1, bias=False)

    def forward(
        self, x: Float[Tensor, "seed row token channel"], padding: Bool[Tensor, "seed row token"]
    ) -> Float[Tensor, "seed row"]:
        """Return rewards."""
        seeds, rows, tokens, _ = x.shape
        flat = x.flatten(1, 2)
        source = self.source.repeat_interleave(torch.tensor(self.tokens_of, device=x.device), dim=1)
        keys = self.keys(flat).unflatten(1, (rows, tokens)) + source[:, None]
        values = self.values(flat).unflatten(1, (rows, tokens)) + source[:, None]
        queries = self.queries[:, None].expand(seeds, rows, -1, -1)
        queries, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(2, 3).flatten(0, 1) for part in (queries, keys, values)
        )
        # A row of padding alone has no token to attend to; it attends to all tokens.
        mask = (~padding | padding.all(dim=-1, keepdim=True)).flatten(0, 1)[:, None, None]
        outputs = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        outputs = outputs.transpose(1, 2).flatten(1).unflatten(0, (seeds, rows))
        rewards: Float[Tensor, "seed row"] = self.out(outputs)[..., 0]
        return rewards


def bradley_terry(margins: Float[Tensor, "*seed pair"], y: Float[Tensor, "*seed pair"]) -> Float[Tensor, "*seed pair"]:
    """Return −y·log σ(m) − (1 − y)·log σ(−m)."""
    return F.binary_cross_entropy_with_logits(margins, y, reduction="none")


def fidelity(margins: Float[Tensor, "*seed pair"], y: Float[Tensor, "*seed pair"]) -> Float[Tensor, "*seed pair"]:
    """Return 1 − √(y·p) − √((1 − y)·(1 − p)) with Thurstone's p = Φ(m / √2) (Tsai et al. 2007; Zhang et al. 2021)."""
    # Square roots by logarithms: their gradients stay finite where p is 0 or 1.
    first, second = (torch.exp(0.5 * torch.special.log_ndtr(sign * margins / math.sqrt(2))) for sign in (1, -1))
    return 1 - y.sqrt() * first - (1 - y).sqrt() * second


Head = MLPHead | AttentionHead
BuildHead = Callable[[list[torch.Generator]], Head]
"""Builds a network, given one generator per seed."""

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"bradley-terry": bradley_terry, "fidelity": fidelity}
