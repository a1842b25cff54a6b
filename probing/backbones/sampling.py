"""Denoise as a stock call of the pipeline does, and hand out every state on the way."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift
from jaxtyping import Float
from torch import Tensor

from probing.backbones.sd3 import Conditioning, SD3Backbone
from probing.errors import UserError

STEPS, GUIDANCE = 40, 4.5
"""The paper's evaluation of policies; its figures of similarity have 40 steps too."""


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
    backbone: SD3Backbone,
    noise: Float[Tensor, "prompt channel row column"],
    conditioning: Conditioning,
    unconditional: Conditioning,
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
) -> Iterator[DenoisingState]:
    """Run the pipeline's own scheduler from noise to latents, with classifier-free guidance; needs ``transformer``.

    Nothing is computed for a state that is not asked for: stop iterating, and the rest never runs.

    Args:
        backbone: Its transformer on the device.
        noise: Standard normal; the scheduler's first level is 1.
        conditioning: Of the prompts, a row each.
        unconditional: Of the empty prompt, one row.
        steps: Forwards of the sampler.
        guidance: Scale of v_empty + scale·(v_prompt − v_empty); at 1 or less the empty prompt is not asked, as in
            diffusers.

    Raises:
        UserError: Fewer than one step.
    """
    if steps < 1:
        raise UserError(f"A trajectory has at least 1 step, got {steps}.")
    # A copy, for a scheduler counts its steps.
    scheduler = copy.deepcopy(backbone.pipeline.scheduler)
    scheduler.set_timesteps(steps, device=backbone.device, **_shift(scheduler, backbone, noise))
    guided = guidance > 1.0
    both = _stack(unconditional.rows(torch.zeros(len(noise), dtype=torch.long)), conditioning) if guided else None
    latents = noise.to(backbone.device, backbone.pipeline.transformer.dtype)
    for step, timestep in enumerate(scheduler.timesteps):
        sigma = float(scheduler.sigmas[step])
        yield DenoisingState(step, sigma, latents)
        rows, told = (latents, conditioning) if both is None else (torch.cat([latents, latents]), both)
        velocity = backbone.transformer(**backbone.transformer_inputs(rows, told, sigma))[0]
        if guided:
            empty, asked = velocity.chunk(2)
            velocity = empty + guidance * (asked - empty)
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0].to(latents.dtype)
    yield DenoisingState(steps, 0.0, latents)


def _stack(first: Conditioning, second: Conditioning) -> Conditioning:
    return Conditioning(
        torch.cat([first.encoder_hidden_states, second.encoder_hidden_states]),
        torch.cat([first.pooled_projections, second.pooled_projections]),
        {part: torch.cat([mask, second.parts[part]]) for part, mask in first.parts.items()},
    )


def _shift(scheduler, backbone: SD3Backbone, noise: Tensor) -> dict[str, float]:
    """Return the shift by token count, where the scheduler's configuration asks for one."""
    config = scheduler.config
    if not config.get("use_dynamic_shifting"):
        return {}
    patch = backbone.pipeline.transformer.config.patch_size
    tokens = (noise.shape[2] // patch) * (noise.shape[3] // patch)
    return {
        "mu": calculate_shift(
            tokens,
            config.get("base_image_seq_len", 256),
            config.get("max_image_seq_len", 4096),
            config.get("base_shift", 0.5),
            config.get("max_shift", 1.16),
        )
    }
