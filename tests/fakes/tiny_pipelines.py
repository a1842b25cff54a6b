"""Complete pipelines of the real classes, small enough to build in a test, one function a family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    ChromaPipeline,
    ChromaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import Qwen3ForCausalLM, Qwen3Model

from tests.fakes import tiny_sd3
from tests.fakes.tiny_parts import clip, mistral3, qwen3, qwen25_vl, shifted_vae, t5, vae

SCHEDULER = {"shift": 3.0, "use_dynamic_shifting": True}


TWO_KINDS = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 3,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 48,
}


def flux(*, guidance: bool = True) -> FluxPipeline:
    tokenizer, encoder = clip()
    tokenizer_2, encoder_2 = t5()
    transformer = FluxTransformer2DModel(
        **TWO_KINDS, pooled_projection_dim=16, guidance_embeds=guidance, axes_dims_rope=(4, 6, 6)
    )
    return FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        vae=shifted_vae(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        text_encoder_2=encoder_2,
        tokenizer_2=tokenizer_2,
    )


def qwen_image() -> QwenImagePipeline:
    stand_in = QwenImagePipeline(None, None, None, None, None)
    tokenizer, encoder = qwen25_vl(stand_in.prompt_template_encode)
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
    )
    autoencoder = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.4],
        latents_std=[1.5, 0.5, 2.0, 1.0],
    )
    return QwenImagePipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        vae=autoencoder,
        text_encoder=encoder,
        tokenizer=tokenizer,
    )


def z_image() -> ZImagePipeline:
    tokenizer, encoder = qwen3(Qwen3Model, 32, 2)
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=3,
        n_refiner_layers=2,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=32,
        axes_dims=[4, 6, 6],
        axes_lens=[256, 64, 64],
    )
    torch.nn.init.normal_(transformer.x_pad_token)
    torch.nn.init.normal_(transformer.cap_pad_token)
    return ZImagePipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=shifted_vae(),
        text_encoder=encoder,
        tokenizer=tokenizer,
    )


def flux2_klein() -> Flux2KleinPipeline:
    tokenizer, encoder = qwen3(Qwen3ForCausalLM, 16, 28)
    transformer = Flux2Transformer2DModel(**TWO_KINDS, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False)
    autoencoder = vae(AutoencoderKLFlux2)
    torch.nn.init.normal_(autoencoder.bn.running_mean)
    torch.nn.init.uniform_(autoencoder.bn.running_var, 0.5, 2.0)
    return Flux2KleinPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        vae=autoencoder,
        text_encoder=encoder,
        tokenizer=tokenizer,
        is_distilled=True,
    )


def flux2_dev() -> Flux2Pipeline:
    tokenizer, encoder = mistral3(16, 31)
    transformer = Flux2Transformer2DModel(**TWO_KINDS, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=True)
    autoencoder = vae(AutoencoderKLFlux2)
    torch.nn.init.normal_(autoencoder.bn.running_mean)
    torch.nn.init.uniform_(autoencoder.bn.running_var, 0.5, 2.0)
    return Flux2Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        vae=autoencoder,
        text_encoder=encoder,
        tokenizer=tokenizer,
    )


def chroma() -> ChromaPipeline:
    tokenizer, encoder = t5()
    transformer = ChromaTransformer2DModel(
        **TWO_KINDS,
        axes_dims_rope=(4, 6, 6),
        approximator_num_channels=16,
        approximator_hidden_dim=32,
        approximator_layers=1,
    )
    return ChromaPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        vae=shifted_vae(),
        text_encoder=encoder,
        tokenizer=tokenizer,
    )


TINY: dict[str, Callable[[], Any]] = {
    "sd3": tiny_sd3.build_pipeline,
    "flux-dev": flux,
    "flux-schnell": lambda: flux(guidance=False),
    "qwen-image": qwen_image,
    "z-image": z_image,
    "flux2-klein": flux2_klein,
    "flux2-dev": flux2_dev,
    "chroma": chroma,
}
"""Builders by name."""


def write(name: str, folder: Path) -> Path:
    """Build a pipeline with fixed weights, save it, and return its folder."""
    torch.manual_seed(0)
    pipeline = TINY[name]()
    pipeline.save_pretrained(folder / name)
    return folder / name
