"""The MMDiT: flow matching on the VAE's latents, text from the three frozen encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from probing.testbed.recipes.loop import Schedule, train
from probing.testbed.recipes.pixels import sample_batch
from probing.testbed.recipes.text import T5_WIDTH, WIDTHS, tokenize, tokenize_t5

SIZES: dict[str, tuple[int, int]] = {"xs": (3, 8)}
"""Heads (of 32 channels) and blocks."""

SCHEDULE = Schedule(
    steps=6_500,
    batch_size=64,
    learning_rate=1e-3,
    weight_decay=0.02,
    warmup=200,
    average=300,
    precision="bfloat16",
    shape="plateau",
)
SCENES = 60_000
"""Different scenes seen in training; held-out scenes come from other seeds."""
CAPTION_DROPOUT = 0.1
_SCENES_SEED = 1_000_000


def build(size: str) -> SD3Transformer2DModel:
    heads, blocks = SIZES[size]
    model = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=8,
        out_channels=8,
        num_layers=blocks,
        attention_head_dim=32,
        num_attention_heads=heads,
        joint_attention_dim=T5_WIDTH,
        caption_projection_dim=32 * heads,
        pooled_projection_dim=sum(width for width, _, _ in WIDTHS.values()),
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )
    # Modulation and output start at zero, so that every block begins as the identity (Peebles and Xie 2022).
    for name, parameter in model.named_parameters():
        if ".norm1.linear." in name or ".norm1_context.linear." in name or name.startswith("proj_out."):
            torch.nn.init.zeros_(parameter)
    return model


class Captions:
    """Text conditioning as the stock SD3 pipeline makes it with ``max_sequence_length=16``."""

    def __init__(self, runs: Path) -> None:
        self.tokenizer = CLIPTokenizer.from_pretrained(runs / "tokenizer")
        self.clips = [CLIPTextModelWithProjection.from_pretrained(runs / name / name).eval() for name in WIDTHS]
        self.t5_tokenizer = T5Tokenizer.from_pretrained(runs / "text_encoder_3" / "tokenizer")
        self.t5 = T5EncoderModel.from_pretrained(runs / "text_encoder_3" / "text_encoder_3").eval()

    @torch.no_grad()
    def encode(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Return token features (caption, 20 + 16, 160), CLIP first, and pooled features (caption, 160)."""
        ids = tokenize(self.tokenizer, captions)
        outputs = [clip(ids, output_hidden_states=True) for clip in self.clips]
        tokens = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pieces = self.t5(tokenize_t5(self.t5_tokenizer, captions)).last_hidden_state
        tokens = torch.nn.functional.pad(tokens, (0, pieces.shape[-1] - tokens.shape[-1]))
        return torch.cat([tokens, pieces], dim=1), torch.cat([output.text_embeds for output in outputs], dim=-1)


def scenes_as_latents(runs: Path, vae: AutoencoderKL, scenes: int = SCENES) -> tuple[list[str], Tensor]:
    """Render and encode the training scenes once; later calls read them back.

    Returns:
        Captions, and shifted and scaled latent means (scene, 8, 16, 16) in float16.
    """
    path = runs / f"latents-{scenes}.pt"
    if path.exists():
        state = torch.load(path, weights_only=True)
        return state["captions"], state["latents"]
    captions: list[str] = []
    latents = torch.empty(scenes, 8, 16, 16, dtype=torch.float16)
    for start in tqdm(range(0, scenes, 500), desc="encoding scenes", disable=None):
        said, pixels = sample_batch(min(500, scenes - start), np.random.default_rng([_SCENES_SEED, start]))
        with torch.no_grad():
            means = vae.encode(pixels).latent_dist.mean
        latents[start : start + len(said)] = (means - vae.config.shift_factor) * vae.config.scaling_factor
        captions += said
    partial = path.with_suffix(".partial")
    torch.save({"captions": captions, "latents": latents}, partial)
    partial.replace(path)
    return captions, latents


def flow_matching_loss(model, latents: Tensor, tokens: Tensor, pooled: Tensor, sigmas: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of the velocity ε − x0 at x_σ = (1 − σ)·x0 + σ·ε, one value an item."""
    level = sigmas[:, None, None, None]
    predicted = model(
        hidden_states=(1 - level) * latents + level * noise,
        encoder_hidden_states=tokens,
        pooled_projections=pooled,
        timestep=1000 * sigmas,
        return_dict=False,
    )[0]
    return (predicted - (noise - latents)).square().mean(dim=(1, 2, 3))


def run(
    runs: Path, size: str, schedule: Schedule = SCHEDULE, *, stop_after: int | None = None
) -> SD3Transformer2DModel:
    """Train one size; noise levels are logit-normal (Esser et al. 2024, section 3.1)."""
    vae = AutoencoderKL.from_pretrained(runs / "vae" / "vae").eval()
    captions, latents = scenes_as_latents(runs, vae)
    said = Captions(runs)
    empty_tokens, empty_pooled = said.encode([""])
    torch.manual_seed(schedule.seed)
    model = build(size)

    def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = rng.integers(len(captions), size=schedule.batch_size)
        tokens, pooled = said.encode([captions[i] for i in chosen])
        dropped = torch.from_numpy(rng.random(len(chosen)) < CAPTION_DROPOUT)
        tokens = torch.where(dropped[:, None, None], empty_tokens, tokens)
        pooled = torch.where(dropped[:, None], empty_pooled, pooled)
        sigmas = torch.sigmoid(torch.from_numpy(rng.standard_normal(len(chosen)))).float()
        clean = latents[torch.from_numpy(chosen)].float()
        errors = flow_matching_loss(model, clean, tokens, pooled, sigmas, torch.randn_like(clean))
        return errors.mean(), {}

    train({"mmdit": model}, loss, schedule, runs / f"mmdit-{size}", stop_after=stop_after)
    model.eval().save_pretrained(runs / f"mmdit-{size}" / "transformer")
    return model
