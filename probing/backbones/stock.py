"""The stock pipeline's classes, imported without the warning on image processors, which nothing here uses."""

from __future__ import annotations

from probing.backbones.log_lines import dropped_log_lines

with dropped_log_lines("transformers.utils.import_utils", "requires torchvision"):
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

__all__ = [
    "AutoencoderKL",
    "CLIPTextModelWithProjection",
    "CLIPTokenizer",
    "FlowMatchEulerDiscreteScheduler",
    "SD3Transformer2DModel",
    "StableDiffusion3Pipeline",
    "T5EncoderModel",
    "T5Tokenizer",
]
