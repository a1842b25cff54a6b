"""The MMDiT: flow matching on the VAE's latents, text from the three frozen encoders."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from probing.errors import UserError
from probing.testbed.recipes import fingerprint
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
KEPT = (0.03, 0.1, 0.3)
"""Parts of the training after which the averaged weights are kept, so that knowledge can be followed as it comes."""
CAPTION_DROPOUT = 0.1
NOISE_MEAN = 1.0
"""Of the logit of the noise levels drawn in training. What a caption decides is decided where noise is high."""
RECORD = "training.json"
"""What is kept of a finished training, and goes with its weights: steps, noise, schedule, what it was computed in."""


def build(size: str) -> SD3Transformer2DModel:
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
    # Modulation and output start at zero, so that every block begins as the identity (Peebles and Xie 2022).
    for name, parameter in model.named_parameters():
        if ".norm1.linear." in name or ".norm1_context.linear." in name or name.startswith("proj_out."):
            torch.nn.init.zeros_(parameter)
    return model


class Captions:
    """Text conditioning as the stock SD3 pipeline makes it with ``max_sequence_length=20``."""

    def __init__(self, runs: Path) -> None:
        self.tokenizer = CLIPTokenizer.from_pretrained(runs / "tokenizer")
        self.clips = [CLIPTextModelWithProjection.from_pretrained(runs / name / name).eval() for name in WIDTHS]
        self.t5_tokenizer = T5Tokenizer.from_pretrained(runs / "text_encoder_3" / "tokenizer")
        self.t5 = T5EncoderModel.from_pretrained(runs / "text_encoder_3" / "text_encoder_3").eval()

    def to(self, device: torch.device | str) -> Captions:
        """Move the encoders, and give them back."""
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
    """What the MMDiT is trained on: every training scene through the frozen VAE and text encoders, once.

    Attributes:
        latents: float16, (scene, 8, 16, 16), shifted and scaled means.
        tokens: float16, (scene, 42, 160).
        pooled: float16, (scene, 160).
        fed: Fingerprint of the VAE and the text encoders.

    On a CPU all are mapped from disk, so that several trainings share them; an accelerator holds them (1.1 GB).
    """

    def __init__(self, runs: Path, scenes: int = SCENES, device: torch.device | str = "cpu", workers: int = 1) -> None:
        parts = {
            "latents": (8, 16, 16),
            "tokens": (CAPTION_LENGTH + T5_LENGTH, T5_WIDTH),
            "pooled": (sum(width for width, _, _ in WIDTHS.values()),),
        }
        encoders = [runs / place for place in ("vae/vae", *(f"{name}/{name}" for name in (*WIDTHS, "text_encoder_3")))]
        if missing := [folder for folder in encoders if not folder.exists()]:
            raise UserError(f"{missing[0]} is missing; python -m probing.testbed.train unpack, or vae and text, first.")
        self.fed = fingerprint.of_weights(*encoders)
        paths = {name: runs / f"{name}-{scenes}.npy" for name in parts}
        noted = runs / f"encoded-{scenes}.txt"
        if noted.exists() and noted.read_text() != self.fed:
            raise UserError(
                f"{noted} says that the scenes were encoded by another VAE or other text encoders; remove "
                f"{', '.join(str(path) for path in (noted, *paths.values()))} to encode them anew."
            )
        if not noted.exists():
            partial = {name: path.with_suffix(".partial.npy") for name, path in paths.items()}
            arrays = {
                name: np.lib.format.open_memmap(partial[name], "w+", np.float16, (scenes, *shape))
                for name, shape in parts.items()
            }
            self._encode(runs, TrainingScenes(runs, scenes, workers), arrays, device)
            for name, array in arrays.items():
                array.flush()
                os.replace(partial[name], paths[name])
            noted.write_text(self.fed)
        # Mapped as copy-on-write, for torch wants arrays that could be written.
        self.latents, self.tokens, self.pooled = (
            torch.from_numpy(np.load(path, mmap_mode="c")).to(device) for path in paths.values()
        )

    @staticmethod
    def _encode(
        runs: Path, scenes: TrainingScenes, arrays: Mapping[str, np.ndarray], device: torch.device | str
    ) -> None:
        vae = torch.nn.Module.to(AutoencoderKL.from_pretrained(runs / "vae" / "vae").eval(), device)
        said = Captions(runs).to(device)
        for start in tqdm(range(0, len(scenes.captions), 500), desc="encoding scenes", disable=None):
            batch = slice(start, start + 500)
            pixels = from_pixels(np.array(scenes.pixels[batch]))
            with torch.no_grad():
                means = vae.encode(pixels.to(device)).latent_dist.mean
            arrays["latents"][batch] = ((means - vae.config.shift_factor) * vae.config.scaling_factor).cpu().numpy()
            tokens, pooled = said.encode(scenes.captions[batch])
            arrays["tokens"][batch], arrays["pooled"][batch] = tokens.cpu().numpy(), pooled.cpu().numpy()


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


def kept(schedule: Schedule) -> list[int]:
    """List the steps after which weights are kept along the way."""
    return sorted({max(1, round(part * schedule.steps)) for part in KEPT})


def matrices(model: SD3Transformer2DModel) -> list[torch.nn.Parameter]:
    """List the matrices of the attentions and MLPs."""
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

    Muon has the matrices of the attentions and MLPs, AdamW the rest.

    Args:
        runs: Holds what the recipes before left; receives checkpoints and the transformer.
        size: Which of :data:`SIZES`.
        schedule: Its seed names the training.
        stop_after: Stop early at this step, with a checkpoint and nothing else.
        device: Where it is trained. Which scenes and noise levels a step sees is the same everywhere; the noise itself
            comes from the device's own generator.
        compiled: Whether the forward is compiled: it costs minutes at the start, and steps are faster after them.

    Returns:
        The averaged weights, on the CPU; of a finished training they are saved as ``transformer``, with a record.
    """
    scenes = EncodedScenes(runs, device=device)
    empty_tokens, empty_pooled = (said.to(device) for said in Captions(runs).encode([""]))
    torch.manual_seed(schedule.seed)
    model = torch.nn.Module.to(build(size), device)
    forward = torch.compile(model) if compiled else model

    def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        def put(drawn: np.ndarray) -> Tensor:
            return torch.from_numpy(drawn).to(device)

        chosen = put(rng.integers(len(scenes.latents), size=schedule.batch_size))
        clean, tokens, pooled = (part[chosen].float() for part in (scenes.latents, scenes.tokens, scenes.pooled))
        dropped = put(rng.random(len(chosen)) < CAPTION_DROPOUT)
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
        fed=scenes.fed,
        stop_after=stop_after,
        keep=kept(schedule),
    )
    torch.nn.Module.to(model, "cpu").eval()
    if stop_after is None or stop_after >= schedule.steps:
        model.save_pretrained(folder / "transformer")
        dtype = computed_in(torch.device(device), schedule.precision)
        said = {
            "steps": schedule.steps,
            "noise_mean": NOISE_MEAN,
            "computed_in": str(dtype).removeprefix("torch."),
            "schedule": asdict(schedule),
        }
        (folder / RECORD).write_text(json.dumps(said, indent=1) + "\n")
    return model
