"""Measure a model of the testbed and write its card.

All trainings are measured on the same held-out scenes with the same noise.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel, StableDiffusion3Pipeline
from matplotlib.figure import Figure

from probing.errors import UserError
from probing.shipped import WEIGHTS
from probing.testbed.judge import accuracy_table, judged_accuracy
from probing.testbed.recipes import mmdit, text, vae
from probing.testbed.recipes.assemble import TRAININGS
from probing.testbed.recipes.cards import render_card, write_card, write_measurements
from probing.testbed.recipes.pixels import SCENES, sample_batch, sample_held_out
from probing.testbed.render import render
from probing.testbed.scenes import ATTRIBUTES, attributes_of, contradict, parse
from probing.testbed.sizes import SIZES
from probing.testbed.tensors import to_tensor

STEPS, GUIDANCE = 20, 4.0
_HELD_OUT = 2_000_000
_SIGMAS = (0.1, 0.3, 0.5, 0.7, 0.9)
_SCENES = 1024
_JUDGED = 400
_BATCH = 50


def run(runs: Path, size: str, weights: Path = WEIGHTS) -> Path:
    """Measure the pipeline and the other trainings of a size; write their cards, ``samples.png`` and ``training.png``.

    Args:
        runs: Holds the log of the training. Without a log an existing ``training.png`` is left as it is.
        size: Which of :data:`SIZES`.
        weights: Holds the pipelines and the other trainings.

    Returns:
        The path of the pipeline's ``README.md``.

    Raises:
        UserError: A folder lacks the record of its training.
    """
    folder = weights / size
    further = sorted((weights / TRAININGS).glob(f"{size}-*"))
    records = {path: _read_record(path) for path in [folder, *further]}
    for path in further:
        write_measurements(path, measure(load_pipeline(folder, path), size, records[path]))
    pipeline = load_pipeline(folder)
    draw_samples(pipeline).savefig(folder / "samples.png", dpi=110, metadata={"Software": None})
    log = runs / f"mmdit-{size}" / "log.jsonl"
    if log.exists():
        curve = pd.read_json(log, lines=True).drop_duplicates("step", keep="last")
        draw_training(curve).savefig(folder / "training.png", dpi=110, metadata={"Software": None})
    card = {
        **measure(pipeline, size, records[folder]),
        "parts": {
            name: sum(p.numel() for p in getattr(pipeline, name).parameters())
            for name in ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
        },
        "psnr": dict(zip(("clean", "spoilt"), reconstruction_psnr(pipeline), strict=True)),
        "bytes": sum(file.stat().st_size for file in folder.rglob("*.safetensors")),
    }
    return write_card(folder, "model_card", card, **_context(card))


def render_readme(card: dict[str, Any]) -> str:
    """Render the ``README.md`` of a pipeline from the content of its ``card.json``."""
    return render_card("model_card", card, **_context(card))


def _context(card: dict[str, Any]) -> dict[str, Any]:
    schedules = {"vae": vae.SCHEDULE, "CLIP": text.SCHEDULE, "T5": text.T5_SCHEDULE}
    return {
        "shape": SIZES[card["size"]],
        "schedules": {name: asdict(schedule) for name, schedule in schedules.items()} | {"mmdit": card["schedule"]},
        "captions": held_out_captions(3),
        "caption_length": text.CAPTION_LENGTH,
        "t5_length": text.T5_LENGTH,
        "steps": STEPS,
        "guidance": GUIDANCE,
        "scenes": SCENES,
        "caption_dropout": mmdit.CAPTION_DROPOUT,
        "held_out_scenes": _SCENES,
        "judged_captions": _JUDGED,
    }


def load_pipeline(folder: Path | str, transformer: Path | str | None = None) -> StableDiffusion3Pipeline:
    """Load a pipeline in float32.

    Args:
        folder: Of the pipeline.
        transformer: Folder of a transformer to use instead of the pipeline's own: another training of the same size.
    """
    replaced = {}
    if transformer is not None:
        replaced["transformer"] = SD3Transformer2DModel.from_pretrained(transformer, torch_dtype=torch.float32)
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.float32, **replaced)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / mmdit.RECORD
    if not path.exists():
        raise UserError(
            f"{path}, the record of the training, is missing; run python -m probing.testbed.train assemble again."
        )
    return json.loads(path.read_text())


def measure(pipeline: StableDiffusion3Pipeline, size: str, record: dict[str, Any]) -> dict[str, Any]:
    """Measure held-out loss by noise level, caption discrimination, and how well generated images match captions.

    Args:
        pipeline: With the transformer to measure.
        size: Which of :data:`SIZES`.
        record: The record of the transformer's training.

    Returns:
        The content of ``card.json``, the record included. ``discriminated`` is :func:`caption_discrimination`,
        ``judged`` the match of generated images with their captions, ``chance`` their match with the caption of
        another image.
    """
    scenes = HeldOut.draw(pipeline.vae, _SCENES)
    losses = scenes.losses(pipeline)
    captions = scenes.captions[:_JUDGED]
    images = generate(pipeline, captions)
    return {
        "size": size,
        **record,
        "parameters": sum(p.numel() for p in pipeline.transformer.parameters()),
        "held_out_loss": losses_by_level(losses).to_dict("records"),
        "discriminated": caption_discrimination(pipeline, scenes, losses[:, :_JUDGED]).to_dict("records"),
        "judged": judged_accuracy(images, captions).to_dict("records"),
        "chance": judged_accuracy(images, [*captions[1:], captions[0]]).to_dict("records"),
    }


@torch.inference_mode()
def generate(pipeline: StableDiffusion3Pipeline, captions: list[str], seed: int = 0) -> list[Any]:
    """Generate one image a caption by stock calls, with the arguments that the card documents."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for start in range(0, len(captions), _BATCH):
        images += pipeline(
            captions[start : start + _BATCH],
            max_sequence_length=text.T5_LENGTH,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=generator,
        ).images
    return images


def held_out_captions(count: int) -> list[str]:
    """Draw captions of scenes that are not in the training data."""
    rng = np.random.default_rng(_HELD_OUT)
    return [sample_held_out(rng).caption for _ in range(count)]


def draw_samples(pipeline: StableDiffusion3Pipeline, rows: int = 5, columns: int = 6) -> Figure:
    """Plot one generated image for each of the first held-out captions."""
    captions = held_out_captions(rows * columns)
    figure = Figure(figsize=(1.75 * columns, 2.25 * rows), layout="constrained")
    axes = figure.subplots(rows, columns).flat
    for ax, caption, image in zip(axes, captions, generate(pipeline, captions), strict=True):
        ax.imshow(image, interpolation="nearest")
        ax.set_title(textwrap.fill(caption, 24), fontsize=8)
        ax.axis("off")
    return figure


def draw_training(log: pd.DataFrame) -> Figure:
    """Plot the training loss against the step."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    ax = figure.subplots()
    ax.plot(log["step"], log["loss"], color="#0072B2")
    ax.set(xlabel="training step", ylabel="flow-matching loss,\nmean of 50 steps", yscale="log")
    ticks = [1, 0.5, 0.3, 0.2, 0.15]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.spines[["top", "right"]].set_visible(False)
    return figure


@dataclass(frozen=True)
class HeldOut:
    """Held-out scenes encoded for a pipeline: latents and noise (scene, 8, 16, 16)."""

    captions: list[str]
    latents: torch.Tensor
    noise: torch.Tensor

    @classmethod
    @torch.inference_mode()
    def draw(cls, vae: AutoencoderKL, count: int) -> HeldOut:
        """Draw the scenes of :func:`held_out_captions`."""
        captions, rng = held_out_captions(count), np.random.default_rng([_HELD_OUT, 1])
        pixels = to_tensor([render(parse(caption), rng) for caption in captions])
        means = torch.cat([vae.encode(batch).latent_dist.mean for batch in pixels.split(_BATCH)])
        noise = torch.randn(means.shape, generator=torch.Generator().manual_seed(_HELD_OUT))
        return cls(captions, (means - vae.config.shift_factor) * vae.config.scaling_factor, noise)

    @torch.inference_mode()
    def losses(self, pipeline: StableDiffusion3Pipeline, captions: Mapping[int, str] | None = None) -> torch.Tensor:
        """Compute the flow-matching losses (noise level, scene).

        Args:
            pipeline: What is measured.
            captions: Captions to condition on, by scene number; every scene with its own caption if None.
        """
        if captions is None:
            captions = dict(enumerate(self.captions))
        losses = []
        for numbers in torch.tensor(list(captions)).split(_BATCH):
            tokens, _, pooled, _ = pipeline.encode_prompt(
                [captions[number] for number in numbers.tolist()],
                None,
                None,
                do_classifier_free_guidance=False,
                max_sequence_length=text.T5_LENGTH,
            )
            inputs = self.latents[numbers], tokens, pooled
            levels = [torch.full((len(numbers),), sigma) for sigma in _SIGMAS]
            noise = self.noise[numbers]
            losses.append([mmdit.flow_matching_loss(pipeline.transformer, *inputs, level, noise) for level in levels])
        return torch.stack([torch.cat(parts) for parts in zip(*losses, strict=True)])


def losses_by_level(losses: torch.Tensor) -> pd.DataFrame:
    """Summarise losses (noise level, scene) by noise level, with a 95% normal interval over scenes.

    The last row, without a sigma, is the mean over the levels.
    """
    measured: dict[float | None, torch.Tensor] = {**dict(zip(_SIGMAS, losses, strict=True)), None: losses.mean(dim=0)}
    return pd.DataFrame(
        [(s, float(v.mean()), 1.96 * float(v.std()) / len(v) ** 0.5) for s, v in measured.items()],
        columns=["sigma", "loss", "half_width"],
        dtype=object,
    )


def caption_discrimination(
    pipeline: StableDiffusion3Pipeline, scenes: HeldOut, caption_losses: torch.Tensor
) -> pd.DataFrame:
    """Measure how often a scene's loss, mean over the noise levels, is lower under its caption than under a wrong one.

    The wrong caption contradicts the scene in one attribute. All captions share the same noise, so chance is one half.
    This is the diffusion classifier of Li et al. (2023). It measures what the model encodes of a caption, even where it
    cannot generate it.

    Args:
        pipeline: What is measured.
        scenes: Held out.
        caption_losses: The losses (noise level, scene) of the first scenes under their own captions; only these scenes
            are measured.

    Returns:
        A table as of :func:`probing.testbed.judge.accuracy_table`. A whole caption counts if no contradiction has a
        lower loss.
    """
    captions = scenes.captions[: caption_losses.shape[1]]
    discriminated: list[dict[str, bool]] = [{} for _ in captions]
    rng = np.random.default_rng([_HELD_OUT, 4])
    parsed = list(map(parse, captions))
    for attribute in ATTRIBUTES:
        wrong = {
            number: contradict(scene, attribute, rng).caption
            for number, scene in enumerate(parsed)
            if attribute in attributes_of(scene)
        }
        if wrong:
            for number, loss in zip(wrong, scenes.losses(pipeline, wrong).mean(dim=0), strict=True):
                discriminated[number][attribute] = bool(caption_losses[:, number].mean() < loss)
    return accuracy_table(discriminated, captions)


@torch.inference_mode()
def reconstruction_psnr(pipeline: StableDiffusion3Pipeline) -> tuple[float, float]:
    """Measure how well the VAE reconstructs clean and degraded scenes: mean PSNR of each in dB."""
    values = []
    for degraded in (0.0, 1.0):
        _, pixels = sample_batch(256, np.random.default_rng([_HELD_OUT, 2]), degraded=degraded)
        restored = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        squared = (restored - pixels).square().mean(dim=(1, 2, 3))
        values.append(float((10 * torch.log10(4 / squared)).mean()))
    return values[0], values[1]
