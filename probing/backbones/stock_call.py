"""The first step of a pipeline's own call: what an adapter is compared with."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from torch import Tensor, nn

from probing.backbones.families.pipeline import PipelineBackbone


@dataclass(frozen=True, eq=False)
class StockCall:
    """What the pipeline's own call did.

    Attributes:
        inputs: Arguments of the transformer's first call.
        sample: Latents of the scheduler's first step.
        velocity: Velocity of that step.
        sigma: Its noise level.
        timestep: What the transformer was told of it.
        decoded: What the VAE decodes where the adapter's x0 is the sampler's result.
    """

    inputs: dict[str, Any]
    sample: Tensor
    velocity: Tensor
    sigma: float
    timestep: float
    decoded: Tensor


class _DecodedError(Exception):
    """Ends a call of the pipeline at its VAE."""


def stock_call(
    backbone: PipelineBackbone, prompts: Sequence[str], noisy: Tensor, clean: Tensor, *, resolution: int, sigma: float
) -> StockCall:
    """Call a pipeline from words to the VAE's door, on given noise, and note what it computes.

    Three doors of the call are patched, and nothing between them: the drawing of noise, the scheduler's step, and the
    VAE's decoder.

    Args:
        backbone: All its parts on the device.
        prompts: One an image.
        noisy: Latents of the first step.
        clean: Latents that the step returns, as if sampling had ended there.
        resolution: Side of the images in pixels.
        sigma: Noise level of the step, before the scheduler's shift.
    """
    pipeline = backbone.pipeline
    seen: dict[str, Any] = {}
    noise = noisy.to(backbone.device)

    def given_noise(shape: Sequence[int], **options: Any) -> Tensor:
        return noise.reshape(tuple(shape)).to(options.get("dtype") or noise.dtype)

    def remember(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
        seen["inputs"] = {name: value for name, value in bound.arguments.items() if name != "self"}
        seen["timestep"] = float(seen["inputs"].get("timestep", seen["inputs"].get("t"))[0])

    def step(velocity: Tensor, timestep: Tensor, latents: Tensor, **_: Any) -> tuple[Tensor]:
        seen.update(velocity=velocity, sample=latents, sigma=float(pipeline.scheduler.sigmas[0]))
        return (backbone.packed(clean.to(latents)),)

    def decode(latents: Tensor, **_: Any) -> None:
        seen["decoded"] = latents
        raise _DecodedError

    hook = backbone.transformer.register_forward_pre_hook(remember, with_kwargs=True)
    try:
        with (
            patch.object(sys.modules[type(pipeline).__module__], "randn_tensor", given_noise),
            patch.object(pipeline.scheduler, "step", step),
            patch.object(pipeline.vae, "decode", decode),
            backbone.quiet_truncation(),
        ):
            pipeline(
                prompt=list(prompts),
                height=resolution,
                width=resolution,
                num_inference_steps=1,
                sigmas=[sigma],
                **backbone.stock_options(),
            )
    except _DecodedError:
        pass
    finally:
        hook.remove()
    return StockCall(**seen)
