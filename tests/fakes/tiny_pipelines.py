"""Complete pipelines of the real classes, small enough to build in a test, one function a family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from tests.fakes import tiny_sd3
from tests.fakes.tiny_text import clip, t5

SCHEDULER = {"shift": 3.0, "use_dynamic_shifting": True}


def vae(**options: Any) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **{"shift_factor": 0.1, "scaling_factor": 1.5, **options},
    )


def flux(folder: Path, *, guidance: bool = True) -> FluxPipeline:
    tokenizer, encoder = clip(folder)
    tokenizer_2, encoder_2 = t5()
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=48,
        pooled_projection_dim=16,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 6, 6),
    )
    return FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        vae=vae(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        text_encoder_2=encoder_2,
        tokenizer_2=tokenizer_2,
    )


TINY: dict[str, Callable[[Path], Any]] = {
    "sd3": tiny_sd3.build_pipeline,
    "flux-dev": flux,
    "flux-schnell": lambda folder: flux(folder, guidance=False),
}
"""Builders by name; each takes an empty folder for files of tokenizers."""


def write(name: str, folder: Path) -> Path:
    """Build a pipeline with fixed weights, save it, and return its folder."""
    torch.manual_seed(0)
    pipeline = TINY[name](folder)
    pipeline.save_pretrained(folder / name)
    return folder / name
