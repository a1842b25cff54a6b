"""The stochastic sampler of Flow-GRPO (Liu et al. 2025, arXiv 2505.05470): each step is a Gaussian."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

NOISE_LEVEL = 0.7
"""Factor of the diffusion in the published settings; 0 is the deterministic sampler."""


@dataclass(frozen=True)
class Step:
    """Distribution of the next latents.

    Attributes:
        mean: Its mean, (item, channel, row, column).
        deviation: Its standard deviation in every component; 0 for a deterministic step.
        diffusion: Coefficient of the noise in the differential equation, ``deviation`` over the root of the step's
            length.
    """

    mean: Float[Tensor, "item channel row column"]
    deviation: float
    diffusion: float

    def at(self, noise: Float[Tensor, "item channel row column"]) -> Float[Tensor, "item channel row column"]:
        """Return the next latents that standard normal noise gives."""
        return self.mean + self.deviation * noise

    def log_probability(self, following: Float[Tensor, "item channel row column"]) -> Float[Tensor, " item"]:
        """Return the log density of the next latents, mean over components as in the published algorithm."""
        if self.deviation == 0:
            raise ValueError("A deterministic step has no density; give a noise level above 0.")
        standard = (following - self.mean) / self.deviation
        density: Float[Tensor, " item"] = (
            (-0.5 * standard**2).flatten(1).mean(dim=1) - math.log(self.deviation) - 0.5 * math.log(2 * math.pi)
        )
        return density


def sde_step(
    velocity: Float[Tensor, "item channel row column"],
    latents: Float[Tensor, "item channel row column"],
    sigma: float,
    following: float,
    *,
    largest: float,
    noise_level: float = NOISE_LEVEL,
) -> Step:
    """Step from one noise level to the next by the equation whose marginals are those of the flow.

    dx = (v + s²/(2σ)·(x + (1 − σ)·v)) dσ + s·√|dσ|·ε, with s = a·√(σ/(1 − σ)) and the noise level a.

    Args:
        velocity: dx/dσ at ``sigma``.
        latents: At ``sigma``.
        sigma: Noise level, above 0.
        following: The next noise level, below.
        largest: Noise level that stands for 1 in the diffusion, which has a pole there: the second of the sampler.
        noise_level: The factor a.
    """
    length = following - sigma
    diffusion = noise_level * math.sqrt(sigma / (1 - (largest if sigma == 1 else sigma)))
    correction = diffusion**2 / (2 * sigma)
    mean = latents * (1 + correction * length) + velocity * (1 + correction * (1 - sigma)) * length
    return Step(mean, diffusion * math.sqrt(-length), diffusion)


@dataclass(frozen=True)
class Rollout:
    """Trajectories of one batch.

    Attributes:
        states: Latents at every noise level, the finished ones last.
        log_probabilities: Of each stochastic step, by its number, (item,).
    """

    states: list[Float[Tensor, "item channel row column"]]
    log_probabilities: dict[int, Float[Tensor, " item"]]

    @property
    def latents(self) -> Float[Tensor, "item channel row column"]:
        """Finished latents."""
        return self.states[-1]


@torch.no_grad()
def rollout(
    velocity: Callable[[Tensor, float], Tensor],
    noise: Float[Tensor, "item channel row column"],
    sigmas: Sequence[float],
    *,
    noise_level: float,
    generator: torch.Generator,
    stochastic_steps: int | None = None,
) -> Rollout:
    """Sample trajectories.

    Args:
        velocity: Takes latents and their noise level.
        noise: Standard normal: the first latents.
        sigmas: Noise levels from 1 to 0.
        noise_level: As for :func:`sde_step`; 0 gives deterministic trajectories without densities.
        generator: Of the steps' noise.
        stochastic_steps: Steps that are stochastic, the first ones; default: all but that to a noise level of 0.
    """
    states, densities = [noise], {}
    stochastic_steps = len(sigmas) if stochastic_steps is None else stochastic_steps
    for number, (sigma, following) in enumerate(pairwise(sigmas)):
        level = noise_level if following > 0 and number < stochastic_steps else 0.0
        step = sde_step(velocity(states[-1], sigma), states[-1], sigma, following, largest=sigmas[1], noise_level=level)
        following_latents = step.mean
        if level > 0:
            following_latents = step.at(torch.randn(noise.shape, generator=generator).to(noise))
            densities[number] = step.log_probability(following_latents)
        states.append(following_latents)
    return Rollout(states, densities)
