"""Denoise as a stock call of the pipeline does, and yield every state on the way."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from probing.backbones.base import Backbone, Conditioning
from probing.errors import UserError

Velocity: TypeAlias = Callable[[Tensor, Conditioning, float], Tensor]
STEPS, GUIDANCE = 40, 4.5
"""The paper's evaluation of policies; its similarity figures have 40 steps too."""


@dataclass(frozen=True)
class DenoisingState:
    """Latents on their way from noise to an image.

    Attributes:
        step: 0-indexed; the forward of this step takes these latents. The last state, that of the finished latents,
            has the number of steps.
        sigma: Their noise level, on the scheduler's grid (which may be shifted); 0 for finished latents.
        latents: On the device, in the transformer's dtype.
    """

    step: int
    sigma: float
    latents: Float[Tensor, "prompt channel row column"]


@torch.inference_mode()
def denoise(
    backbone: Backbone,
    noise: Float[Tensor, "prompt channel row column"],
    conditioning: Conditioning,
    unconditional: Conditioning,
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    velocity: Velocity | None = None,
) -> Iterator[DenoisingState]:
    """Run the pipeline's own scheduler from noise to latents, with classifier-free guidance; needs ``transformer``.

    States are computed when they are requested: stop iterating, and the rest never runs.

    Args:
        backbone: Its transformer on the device.
        noise: Standard normal; the scheduler's first level is 1.
        conditioning: The prompts, a row each.
        unconditional: The empty prompt, one row.
        steps: Forwards of the sampler.
        guidance: Scale of v_empty + scale·(v_prompt − v_empty); at 1 or less the empty prompt is not used, as in
            diffusers, nor by a model that embeds its own guidance.
        velocity: Takes noisy latents, conditioning and noise level; the backbone's own if None. With guidance, rows
            of the empty prompt come first.

    Raises:
        UserError: Fewer than one step.
    """
    velocity_of = backbone.velocity if velocity is None else velocity
    if steps < 1:
        raise UserError(f"A trajectory has at least 1 step, got {steps}.")
    # A copy, for a scheduler counts its steps.
    scheduler = copy.deepcopy(backbone.scheduler)
    architecture = backbone.spec.architecture
    tokens = math.prod(architecture.token_grid(noise.shape[2] * architecture.vae_factor))
    backbone.set_timesteps(scheduler, steps, tokens)
    # A model that embeds its guidance is distilled to need no empty prompt.
    guided = guidance > 1.0 and backbone.guidance is None
    read = conditioning
    if guided:
        empty = unconditional.rows(torch.zeros(len(noise), dtype=torch.long))
        read = Conditioning.concatenate([empty, conditioning])
    latents = noise.to(backbone.device, backbone.dtype)
    for step, timestep in enumerate(scheduler.timesteps):
        sigma = float(scheduler.sigmas[step])
        yield DenoisingState(step, sigma, latents)
        predicted = velocity_of(torch.cat([latents, latents]) if guided else latents, read, sigma)
        if guided:
            without, with_prompt = predicted.chunk(2)
            predicted = without + guidance * (with_prompt - without)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0].to(latents.dtype)
    yield DenoisingState(steps, 0.0, latents)
