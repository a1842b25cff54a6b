"""Train the MMDiT: flow matching on the VAE's latents, conditioned on the three frozen text encoders."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from probing.errors import UserError
from probing.files import write_text
from probing.progress import progress
from probing.testbed.recipes import fingerprint
from probing.testbed.recipes.array_files import new_array
from probing.testbed.recipes.loop import Schedule, computed_in, train
from probing.testbed.recipes.pixels import SCENES, TrainingScenes
from probing.testbed.recipes.text import CAPTION_LENGTH, T5_LENGTH, T5_WIDTH, WIDTHS, tokenize, tokenize_t5
from probing.testbed.sizes import SIZES, run_name
from probing.testbed.tensors import from_pixels

SCHEDULE = Schedule(
    steps=6_500,
    batch_size=32,
    learning_rate=2e-3,
    weight_decay=0.02,
    warmup=150,
    average=150,
    precision="bfloat16",
    shape="plateau",
    matrix_rate=0.012,
)
CHECKPOINT_FRACTIONS = (0.03, 0.1, 0.3)
"""Fractions of the training after which the averaged weights are saved, to measure probes along the training."""
CAPTION_DROPOUT = 0.1
NOISE_MEAN = 1.0
"""Mean logit of the noise levels in training. Above 0, because captions matter most at high noise."""
RECORD = "training.json"
"""File beside the weights of a finished training: steps, noise, schedule and dtype of the computation."""
_BATCH = 500
"""Scenes encoded at once."""


def build(size: str) -> SD3Transformer2DModel:
    """Build an untrained MMDiT, one of :data:`SIZES`."""
    shape = SIZES[size]
    model = SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=8,
        out_channels=8,
        num_layers=shape.blocks,
        attention_head_dim=32,
        num_attention_heads=shape.heads,
        joint_attention_dim=T5_WIDTH,
        caption_projection_dim=32 * shape.heads,
        pooled_projection_dim=sum(width for width, _, _ in WIDTHS.values()),
        pos_embed_max_size=8,
        dual_attention_layers=tuple(range(shape.dual)),
        qk_norm="rms_norm",
    )
    # Initialise modulation and output to zero, so that every block starts as the identity (Peebles and Xie 2022).
    for name, parameter in model.named_parameters():
        if ".norm1.linear." in name or ".norm1_context.linear." in name or name.startswith("proj_out."):
            torch.nn.init.zeros_(parameter)
    return model


class Captions:
    """Text conditioning, equal to that of the stock SD3 pipeline with ``max_sequence_length=20``."""

    def __init__(self, runs: Path) -> None:
        self.tokenizer = CLIPTokenizer.from_pretrained(runs / "tokenizer")
        self.clips = [CLIPTextModelWithProjection.from_pretrained(runs / name / name).eval() for name in WIDTHS]
        self.t5_tokenizer = T5Tokenizer.from_pretrained(runs / "text_encoder_3" / "tokenizer")
        self.t5 = T5EncoderModel.from_pretrained(runs / "text_encoder_3" / "text_encoder_3").eval()

    def to(self, device: torch.device | str) -> Captions:
        """Move the encoders to a device; return this object."""
        for encoder in (*self.clips, self.t5):
            torch.nn.Module.to(encoder, device)
        return self

    @torch.no_grad()
    def encode(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Return token features (caption, 22 + 20, 160), CLIP first, and pooled features (caption, 160)."""
        device = self.t5.device
        ids = tokenize(self.tokenizer, captions).to(device)
        outputs = [clip(ids, output_hidden_states=True) for clip in self.clips]
        tokens = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pieces = self.t5(tokenize_t5(self.t5_tokenizer, captions).to(device)).last_hidden_state
        tokens = torch.nn.functional.pad(tokens, (0, pieces.shape[-1] - tokens.shape[-1]))
        return torch.cat([tokens, pieces], dim=1), torch.cat([output.text_embeds for output in outputs], dim=-1)


class EncodedScenes:
    """The training scenes, encoded once by the frozen VAE and text encoders.

    On a CPU the arrays are mapped from disk, so that several trainings share the memory; on an accelerator they take
    1.1 GB.

    Attributes:
        latents: float16, (scene, 8, 16, 16), shifted and scaled means.
        tokens: float16, (scene, 42, 160).
        pooled: float16, (scene, 160).
        encoders: Fingerprint of the VAE and the text encoders.
    """

    def __init__(self, runs: Path, scenes: int = SCENES, device: torch.device | str = "cpu", workers: int = 1) -> None:
        parts = {
            "latents": (8, 16, 16),
            "tokens": (CAPTION_LENGTH + T5_LENGTH, T5_WIDTH),
            "pooled": (sum(width for width, _, _ in WIDTHS.values()),),
        }
        folders = [runs / path for path in ("vae/vae", *(f"{name}/{name}" for name in (*WIDTHS, "text_encoder_3")))]
        if missing := [folder for folder in folders if not folder.exists()]:
            raise UserError(
                f"{missing[0]} is missing; run python -m probing.testbed.train unpack, or vae and text, first."
            )
        self.encoders = fingerprint.of_weights(*folders)
        paths = {name: runs / f"{name}-{scenes}.npy" for name in parts}
        record = runs / f"encoded-{scenes}.txt"
        if record.exists() and record.read_text() != self.encoders:
            raise UserError(
                f"{record} belongs to scenes encoded by another VAE or other text encoders; remove "
                f"{', '.join(str(path) for path in (record, *paths.values()))} to encode them again."
            )
        if not record.exists():
            with ExitStack() as stack:
                arrays = {
                    name: stack.enter_context(new_array(paths[name], np.float16, (scenes, *shape)))
                    for name, shape in parts.items()
                }
                self._encode(runs, TrainingScenes(runs, scenes, workers), arrays, device)
            write_text(record, self.encoders)
        # Mapped copy-on-write, because torch requires writable arrays.
        self.latents, self.tokens, self.pooled = (
            torch.from_numpy(np.load(path, mmap_mode="c")).to(device) for path in paths.values()
        )

    @staticmethod
    def _encode(
        runs: Path, scenes: TrainingScenes, arrays: Mapping[str, np.ndarray], device: torch.device | str
    ) -> None:
        vae = torch.nn.Module.to(AutoencoderKL.from_pretrained(runs / "vae" / "vae").eval(), device)
        encoders = Captions(runs).to(device)
        with progress(len(scenes.captions), "encoding scenes", "scenes") as bar:
            for start in range(0, len(scenes.captions), _BATCH):
                batch = slice(start, start + _BATCH)
                pixels = from_pixels(np.array(scenes.pixels[batch]))
                with torch.no_grad():
                    means = vae.encode(pixels.to(device)).latent_dist.mean
                arrays["latents"][batch] = ((means - vae.config.shift_factor) * vae.config.scaling_factor).cpu().numpy()
                tokens, pooled = encoders.encode(scenes.captions[batch])
                arrays["tokens"][batch], arrays["pooled"][batch] = tokens.cpu().numpy(), pooled.cpu().numpy()
                bar.update(len(pixels))


def flow_matching_loss(
    model: Callable[..., Any], latents: Tensor, tokens: Tensor, pooled: Tensor, sigmas: Tensor, noise: Tensor
) -> Tensor:
    """Compute the mean squared error of the velocity ε − x0 at x_σ = (1 − σ)·x0 + σ·ε, one value for each item."""
    level = sigmas[:, None, None, None]
    predicted = model(
        hidden_states=(1 - level) * latents + level * noise,
        encoder_hidden_states=tokens,
        pooled_projections=pooled,
        timestep=1000 * sigmas,
        return_dict=False,
    )[0]
    return (predicted - (noise - latents)).square().mean(dim=(1, 2, 3))


def checkpoint_steps(schedule: Schedule) -> list[int]:
    """List the steps of :data:`CHECKPOINT_FRACTIONS`."""
    return sorted({max(1, round(fraction * schedule.steps)) for fraction in CHECKPOINT_FRACTIONS})


def matrices(model: SD3Transformer2DModel) -> list[torch.nn.Parameter]:
    """List the matrices of the attentions and MLPs, which Muon optimises."""
    named = model.transformer_blocks.named_parameters()
    return [parameter for name, parameter in named if parameter.ndim == 2 and ".norm1" not in name]


def run(
    runs: Path,
    size: str,
    schedule: Schedule = SCHEDULE,
    *,
    stop_after: int | None = None,
    device: torch.device | str = "cpu",
    compiled: bool = False,
) -> SD3Transformer2DModel:
    """Train one size; noise levels are logit-normal (Esser et al. 2024, section 3.1).

    Muon optimises the matrices of the attentions and MLPs, AdamW the rest.

    Args:
        runs: Holds the VAE and the text encoders; receives checkpoints and the transformer.
        size: Which of :data:`SIZES`.
        schedule: Its seed is part of the name of the training.
        stop_after: Stop early after this step, with a checkpoint and no transformer.
        device: Where to train. The scenes and noise levels of a step do not depend on it; the noise comes from the
            device's own generator.
        compiled: Whether to compile the forward: minutes at the start, then faster steps.

    Returns:
        The averaged weights, on the CPU. After the last step they are also saved as ``transformer``, with a record.
    """
    scenes = EncodedScenes(runs, device=device)
    empty_tokens, empty_pooled = (features.to(device) for features in Captions(runs).encode([""]))
    torch.manual_seed(schedule.seed)
    model = torch.nn.Module.to(build(size), device)
    forward = torch.compile(model) if compiled else model

    def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        chosen = torch.from_numpy(rng.integers(len(scenes.latents), size=schedule.batch_size)).to(device)
        clean, tokens, pooled = (part[chosen].float() for part in (scenes.latents, scenes.tokens, scenes.pooled))
        dropped = torch.from_numpy(rng.random(len(chosen)) < CAPTION_DROPOUT).to(device)
        tokens = torch.where(dropped[:, None, None], empty_tokens, tokens)
        pooled = torch.where(dropped[:, None], empty_pooled, pooled)
        sigmas = torch.sigmoid(torch.from_numpy(rng.normal(NOISE_MEAN, size=len(chosen))).float()).to(device)
        errors = flow_matching_loss(forward, clean, tokens, pooled, sigmas, torch.randn_like(clean))
        return errors.mean(), {}

    folder = runs / f"mmdit-{run_name(size, schedule.seed)}"
    train(
        {"mmdit": model},
        loss,
        schedule,
        folder,
        matrices=matrices(model),
        inputs=scenes.encoders,
        stop_after=stop_after,
        keep=checkpoint_steps(schedule),
    )
    torch.nn.Module.to(model, "cpu").eval()
    if stop_after is None or stop_after >= schedule.steps:
        model.save_pretrained(folder / "transformer")
        dtype = computed_in(torch.device(device), schedule.precision)
        record = {
            "steps": schedule.steps,
            "noise_mean": NOISE_MEAN,
            "computed_in": str(dtype).removeprefix("torch."),
            "schedule": asdict(schedule),
        }
        write_text(folder / RECORD, json.dumps(record, indent=1) + "\n")
    return model
