"""Fitted probes as modules of torch: rewards of batches on any device, with gradients by the features."""

from __future__ import annotations

import torch
from jaxtyping import Float
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from probing.probes._base import LinearProbe, Probe
from probing.probes._neural import NeuralProbe


class LinearModule(nn.Module):
    """x'coef_, in float64."""

    coef: Tensor

    def __init__(self, probe: LinearProbe) -> None:
        super().__init__()
        self.register_buffer("coef", torch.tensor(probe.coef_, dtype=torch.float64))

    def forward(self, features: Float[Tensor, "item channel"]) -> Float[Tensor, " item"]:
        # A sum by row: a matrix product may take another order of sums with other batch mates.
        rewards: Float[Tensor, " item"] = (features.double() * self.coef).sum(dim=1)
        return rewards


class NetworkModule(nn.Module):
    """The mean over seeds of a network's rewards of standardised features."""

    mean: Tensor
    scale: Tensor

    def __init__(self, probe: NeuralProbe) -> None:
        super().__init__()
        self.network, self.seeds = probe.network_, probe.seeds
        self.register_buffer("mean", torch.tensor(probe.mean_))
        self.register_buffer("scale", torch.tensor(probe.scale_))

    def forward(self, features: Float[Tensor, "item *shape"]) -> Float[Tensor, " item"]:
        padding = (features == 0).all(dim=-1)
        standard = (features.float() - self.mean) / self.scale
        several = (t.expand(self.seeds, *t.shape) for t in (standard, padding))
        rewards: Float[Tensor, " item"] = self.network(*several).double().mean(dim=0)
        return rewards


def reward_module(probe: Probe) -> nn.Module:
    """Return a module from features (item, *shape), as the probe was fitted on, to rewards (item,) in float64."""
    check_is_fitted(probe)
    module = NetworkModule(probe) if isinstance(probe, NeuralProbe) else LinearModule(probe)
    return module.eval().requires_grad_(False)
