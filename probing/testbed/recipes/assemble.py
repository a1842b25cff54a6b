"""Put the trained parts together as a stock ``StableDiffusion3Pipeline`` folder, in half precision."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from probing.testbed.recipes.text import WIDTHS

WEIGHTS = Path(__file__).parents[1] / "weights"
"""Where the registry looks for them."""


def run(runs: Path, size: str, output: Path) -> None:
    """Save the pipeline folder of one size."""
    first, second = (CLIPTextModelWithProjection.from_pretrained(runs / name / name) for name in WIDTHS)
    tokenizers = [CLIPTokenizer.from_pretrained(runs / name / "tokenizer") for name in WIDTHS]
    pipeline = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel.from_pretrained(runs / f"mmdit-{size}" / "transformer"),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=AutoencoderKL.from_pretrained(runs / "vae" / "vae"),
        text_encoder=first,
        tokenizer=tokenizers[0],
        text_encoder_2=second,
        tokenizer_2=tokenizers[1],
        text_encoder_3=T5EncoderModel.from_pretrained(runs / "text_encoder_3" / "text_encoder_3"),
        tokenizer_3=T5Tokenizer.from_pretrained(runs / "text_encoder_3" / "tokenizer"),
    ).to(torch.float16)
    pipeline.save_pretrained(output)
