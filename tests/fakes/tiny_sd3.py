"""A complete SD3.5 pipeline of the real classes, small enough to build in a test.

Three text encoders, dual attention in its first blocks, query and key norms, as SD3.5-Medium has.
"""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextModelWithProjection

from tests.fakes.tiny_parts import clip, shifted_vae, t5

BLOCKS, HEADS, HEAD_WIDTH, T5_LENGTH = 4, 2, 16, 12


def build_pipeline() -> StableDiffusion3Pipeline:
    torch.manual_seed(0)
    tokenizer, first = clip(CLIPTextModelWithProjection, 16)
    _, second = clip(CLIPTextModelWithProjection, 24)
    encoders = [first, second]
    t5_tokenizer, t5_encoder = t5(48)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=BLOCKS,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=48,
        caption_projection_dim=HEADS * HEAD_WIDTH,
        pooled_projection_dim=40,
        pos_embed_max_size=8,
        dual_attention_layers=(0, 1),
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=shifted_vae(),
        text_encoder=encoders[0],
        tokenizer=tokenizer,
        text_encoder_2=encoders[1],
        tokenizer_2=tokenizer,
        text_encoder_3=t5_encoder,
        tokenizer_3=t5_tokenizer,
    )
