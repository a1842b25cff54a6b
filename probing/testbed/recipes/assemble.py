"""Put the trained parts together as a stock ``StableDiffusion3Pipeline`` folder, in half precision."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

from probing.testbed.recipes.mmdit import Captions

WEIGHTS = Path(__file__).parents[1] / "weights"
"""Where the registry looks for them."""


def run(runs: Path, size: str, output: Path) -> None:
    """Save the pipeline folder of one size, with the very encoders and tokenizers that its training used."""
    said = Captions(runs)
    pipeline = StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel.from_pretrained(runs / f"mmdit-{size}" / "transformer"),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=AutoencoderKL.from_pretrained(runs / "vae" / "vae"),
        text_encoder=said.clips[0],
        tokenizer=said.tokenizer,
        text_encoder_2=said.clips[1],
        tokenizer_2=said.tokenizer,
        text_encoder_3=said.t5,
        tokenizer_3=said.t5_tokenizer,
    ).to(torch.float16)
    pipeline.save_pretrained(output)
    for path in output.glob("text_encoder*/config.json"):
        # Transformers loads in the dtype that is written here, diffusers in float32: a call without dtype needs both.
        path.write_text(json.dumps({**json.loads(path.read_text()), "dtype": "float32"}, indent=2) + "\n")
