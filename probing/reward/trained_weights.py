"""The weights that a training changes: in float32 whatever the network computes in, with their running mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class TrainedWeights:
    """Parameters of a network, and the float32 copies that an optimizer changes.

    In bfloat16 a step is smaller than what a weight can hold and would be lost (Micikevicius et al., 2018), so steps
    add up in a copy, and the network gets its rounded values. Parameters of 32 bits or more have no copy.

    Args:
        groups: Parameter groups of an optimizer, on the device where they are trained.
        ema: Decay of the running mean; 0 for none.
    """

    def __init__(self, groups: Sequence[Mapping[str, Any]], *, ema: float) -> None:
        self._own: list[nn.Parameter] = [parameter for group in groups for parameter in group["params"]]
        self.values = [p if p.dtype.itemsize >= 4 else nn.Parameter(p.detach().float()) for p in self._own]
        value_of = dict(zip(map(id, self._own), self.values, strict=True))
        self.groups = [{**group, "params": [value_of[id(p)] for p in group["params"]]} for group in groups]
        self._ema = ema
        self.mean: list[Tensor] = self.copy() if ema else []

    def copy(self) -> list[Tensor]:
        """Copy the values."""
        return [value.detach().clone() for value in self.values]

    @torch.no_grad()
    def set(self, values: Sequence[Tensor]) -> None:
        """Give values to the weights and to the network."""
        for own, value in zip(self.values, values, strict=True):
            own.copy_(value)
        self._round()

    def take_gradients(self) -> None:
        """Move the gradients of the network to the values."""
        for parameter, value in zip(self._own, self.values, strict=True):
            if parameter is not value:
                value.grad = None if parameter.grad is None else parameter.grad.float()
                parameter.grad = None

    @torch.no_grad()
    def after_step(self) -> None:
        """Give the network the values after a step, and move the mean."""
        self._round()
        for mean, value in zip(self.mean, self.values, strict=False):
            mean.lerp_(value.to(mean.dtype), 1 - self._ema)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the mean for the time of a ``with`` block; nothing without one."""
        if not self.mean:
            yield
            return
        own = self.copy()
        self.set(self.mean)
        try:
            yield
        finally:
            self.set(own)

    def _round(self) -> None:
        for parameter, value in zip(self._own, self.values, strict=True):
            if parameter is not value:
                parameter.copy_(value)
