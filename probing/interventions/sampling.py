"""Sample with some blocks changed."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from probing.backbones import Backbone, Conditioning
from probing.backbones.sampling import GUIDANCE, STEPS, denoise
from probing.features.trace import BlockTrace, Edit


def sample_edited(
    backbone: Backbone,
    noise: Float[Tensor, "item channel row column"],
    conditioning: Conditioning,
    unconditional: Conditioning,
    edits: Mapping[int, Edit],
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    levels: tuple[float, float] = (0.0, 1.0),
) -> Float[Tensor, "item channel row column"]:
    """Run the pipeline's own sampler with edits of blocks, and return the finished latents.

    Args:
        backbone: Loaded.
        noise: Standard normal.
        conditioning: The prompts, a row each.
        unconditional: The empty prompt, one row.
        edits: By block. With guidance they change the rows of the empty prompt too, unless they name rows.
        steps: Forwards of the sampler.
        guidance: Scale of classifier-free guidance.
        levels: Edit the forwards of these noise levels, both ends included.

    Raises:
        UserError: As :meth:`probing.features.trace.BlockTrace.velocity`.
    """
    trace, latents = BlockTrace(backbone), noise

    def velocity(noisy: Tensor, words: Conditioning, sigma: float) -> Tensor:
        if not edits or not levels[0] <= sigma <= levels[1]:
            return backbone.velocity(noisy, words, sigma)
        return trace.velocity(noisy, words, sigma, edits)

    with backbone.on_device("transformer"):
        words, empty = conditioning.to(backbone.device), unconditional.to(backbone.device)
        for state in denoise(backbone, noise, words, empty, steps=steps, guidance=guidance, velocity=velocity):
            latents = state.latents
    return latents.float().cpu()
