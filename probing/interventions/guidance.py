"""Guide a sampler by the gradient of a reward."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from probing.backbones import Conditioning
from probing.backbones.sampling import Velocity
from probing.errors import UserError

Gradient: TypeAlias = Callable[[Tensor, Tensor, Conditioning, float], Tensor]
"""Takes noisy latents, the model's estimate of the clean ones, their conditioning (a row each) and the noise level;
returns the gradient of each item's reward by its noisy latents."""
LEVELS = (0.0, 0.9)
"""Noise levels at which a sampler is guided by default: close to 1 nothing can be read, and the factor has a pole."""


def guide(
    velocity: Velocity, gradient: Gradient, scale: float, items: int, *, levels: tuple[float, float] = LEVELS
) -> Velocity:
    """Change a velocity so that samples are drawn from p(x)·exp(scale · reward(x)).

    Adding scale·g to the gradient of the log density of noisy latents is classifier guidance (Dhariwal and Nichol
    2021). With x_σ = (1 − σ)·x0 + σ·ε the velocity is −(x + σ·∇log p)/(1 − σ), so that it becomes

        v − scale · σ/(1 − σ) · g.

    This is exact if g is the gradient of log E[exp(scale · reward(x0)) | x_σ] / scale, which a head on noisy latents
    approximates; a head on clean ones, at the estimate x − σ·v, ignores what is uncertain in it.

    Args:
        velocity: Of :class:`probing.backbones.Backbone` or an edited one.
        gradient: Of the reward, such as a :class:`probing.reward.RewardGradient`.
        scale: 0 changes nothing.
        items: Number of items; with classifier-free guidance the rows of their prompts are the last of a forward.
        levels: Noise levels at which the sampler is guided, both ends included, below 1.

    Raises:
        UserError: Levels outside [0, 1), or a forward of another number of rows.
    """
    if not 0 <= levels[0] <= levels[1] < 1:
        raise UserError(f"Got levels {levels[0]:g} to {levels[1]:g} for guidance, expected them within [0, 1).")

    def guided(noisy: Tensor, conditioning: Conditioning, sigma: float) -> Float[Tensor, "row ..."]:
        plain = velocity(noisy, conditioning, sigma)
        if scale == 0 or not levels[0] <= sigma <= levels[1]:
            return plain
        if len(noisy) not in (items, 2 * items):
            raise UserError(f"Got {len(noisy)} rows for guidance, expected {items}, or twice as many.")
        rows = torch.arange(len(noisy) - items, len(noisy))
        chosen = noisy[rows]
        push = gradient(chosen, chosen - sigma * plain[rows], conditioning.rows(rows), sigma).to(plain)
        # The same for the rows of the empty prompt, so that it passes classifier-free guidance unchanged.
        pushes = push.repeat(len(noisy) // items, *[1] * (push.ndim - 1))
        return plain - scale * sigma / (1 - sigma) * pushes

    return guided
