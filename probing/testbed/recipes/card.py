"""The model card: what the weights are, how they came to be, what they draw; written from the finished folder."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import StableDiffusion3Pipeline
from matplotlib.figure import Figure

from probing.testbed.recipes import mmdit, text, vae
from probing.testbed.recipes.pixels import sample_batch
from probing.testbed.scenes import sample_scene

STEPS, GUIDANCE = 28, 4.0
_HELD_OUT = 2_000_000
_SIGMAS = (0.1, 0.3, 0.5, 0.7, 0.9)
_SCENES = 1024


def run(runs: Path, folder: Path, size: str) -> Path:
    """Measure the saved weights, draw ``samples.png`` and ``training.png``, and write ``README.md`` beside them.

    What else is to be told of these very weights stands in ``notes.md`` of the run, and is added at the end.
    """
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    draw_samples(pipeline).savefig(folder / "samples.png", dpi=110, metadata={"Software": None})
    log = pd.read_json(runs / f"mmdit-{size}" / "log.jsonl", lines=True).drop_duplicates("step", keep="last")
    draw_training(log).savefig(folder / "training.png", dpi=110, metadata={"Software": None})
    losses = held_out_losses(pipeline)
    card = folder / "README.md"
    notes = runs / f"mmdit-{size}" / "notes.md"
    said = notes.read_text() if notes.exists() else ""
    card.write_text(_write(size, pipeline, log, losses, restored_psnr(pipeline), _bytes(folder)) + said)
    return card


@torch.inference_mode()
def generate(pipeline: StableDiffusion3Pipeline, captions: list[str], seed: int = 0) -> list:
    """Generate by a stock call, with the arguments that the card states."""
    return pipeline(
        captions,
        max_sequence_length=text.T5_LENGTH,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(seed),
    ).images


def held_out_captions(count: int) -> list[str]:
    rng = np.random.default_rng(_HELD_OUT)
    return [sample_scene(rng).caption for _ in range(count)]


def draw_samples(pipeline: StableDiffusion3Pipeline, rows: int = 5, columns: int = 6) -> Figure:
    """Draw held-out captions with one generated picture each, none chosen by hand."""
    captions = held_out_captions(rows * columns)
    figure = Figure(figsize=(1.75 * columns, 2.25 * rows), layout="constrained")
    axes = figure.subplots(rows, columns).flat
    for ax, caption, image in zip(axes, captions, generate(pipeline, captions), strict=True):
        ax.imshow(image, interpolation="nearest")
        ax.set_title(textwrap.fill(caption, 24), fontsize=8)
        ax.axis("off")
    return figure


def draw_training(log: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(6, 3), layout="constrained")
    ax = figure.subplots()
    ax.plot(log["step"], log["loss"], color="0.75", linewidth=0.8, label="mean of 50 steps")
    ax.plot(log["step"], log["loss"].rolling(10, min_periods=1).mean(), color="#0072B2", label="mean of 500 steps")
    ax.set(xlabel="training step", ylabel="flow-matching loss", yscale="log")
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


@torch.inference_mode()
def held_out_losses(pipeline: StableDiffusion3Pipeline) -> pd.DataFrame:
    """Measure the flow-matching loss on unseen scenes by noise level, with a 95% normal interval over scenes."""
    captions, pixels = sample_batch(_SCENES, np.random.default_rng([_HELD_OUT, 1]))
    config = pipeline.vae.config
    rows: dict[float, list[torch.Tensor]] = {sigma: [] for sigma in _SIGMAS}
    generator = torch.Generator().manual_seed(_HELD_OUT)
    for start in range(0, _SCENES, 64):
        batch = slice(start, start + 64)
        latents = pipeline.vae.encode(pixels[batch]).latent_dist.mean
        latents = (latents - config.shift_factor) * config.scaling_factor
        tokens, _, pooled, _ = pipeline.encode_prompt(
            captions[batch], None, None, do_classifier_free_guidance=False, max_sequence_length=text.T5_LENGTH
        )
        noise = torch.randn(latents.shape, generator=generator)
        for sigma, losses in rows.items():
            level = torch.full((len(latents),), sigma)
            losses.append(mmdit.flow_matching_loss(pipeline.transformer, latents, tokens, pooled, level, noise))
    measured = {sigma: torch.cat(losses) for sigma, losses in rows.items()}
    return pd.DataFrame(
        [(s, float(v.mean()), 1.96 * float(v.std()) / len(v) ** 0.5) for s, v in measured.items()],
        columns=["sigma", "loss", "half_width"],
    )


@torch.inference_mode()
def restored_psnr(pipeline: StableDiffusion3Pipeline) -> tuple[float, float]:
    """Measure how well the VAE restores clean and spoilt scenes: mean PSNR in dB of each."""
    values = []
    for degraded in (0.0, 1.0):
        _, pixels = sample_batch(256, np.random.default_rng([_HELD_OUT, 2]), degraded=degraded)
        restored = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        squared = (restored - pixels).square().mean(dim=(1, 2, 3))
        values.append(float((10 * torch.log10(4 / squared)).mean()))
    return values[0], values[1]


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def _write(size, pipeline, log, losses, psnr, weight_bytes) -> str:
    parts = [
        (name, sum(p.numel() for p in getattr(pipeline, name).parameters()))
        for name in ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
    ]
    heads, blocks = mmdit.SIZES[size]
    table = "\n".join(f"| {row.sigma:g} | {row.loss:.4f} ± {row.half_width:.4f} |" for row in losses.itertuples())
    recipes = {"vae": vae.SCHEDULE, "CLIP": text.SCHEDULE, "T5": text.T5_SCHEDULE, "mmdit": mmdit.SCHEDULE}
    return f"""# testbed-{size}

A complete, small text-to-image model of Stable Diffusion 3.5's classes, trained from nothing on captioned scenes.
It is here so that probes can be tried, tested and believed on any laptop; it is good for nothing else.

| part | parameters |
|---|---|
{chr(10).join(f"| {name} | {count:,} |" for name, count in parts)}

The MMDiT has {blocks} blocks of {heads} heads × 32 = {32 * heads} channels, query and key norms, patch 2 on latents of
8×16×16: 64 image tokens, {text.CAPTION_LENGTH} CLIP and {text.T5_LENGTH} T5 tokens. All weights together: {weight_bytes / 1e6:.1f} MB, float16.

## Use

```python
from diffusers import StableDiffusion3Pipeline

pipeline = StableDiffusion3Pipeline.from_pretrained("probing/testbed/weights/{size}")
pipeline("{held_out_captions(1)[0]}", max_sequence_length={text.T5_LENGTH}, num_inference_steps={STEPS}, guidance_scale={GUIDANCE})
```

`max_sequence_length={text.T5_LENGTH}` matters: a stock call pads the T5 part to 256 positions, and this model never saw so
many. Captions are those of `probing/testbed/scenes.py`, e.g. "{held_out_captions(3)[2]}".

![captions that were not chosen by hand, one generated picture each](samples.png)

## Training

`python -m probing.testbed.train vae`, then `text`, `mmdit`, `assemble` and `card`; float16 on disk is the only change
after training. The MMDiT saw {mmdit.SCENES:,} rendered scenes, logit-normal noise levels and {mmdit.CAPTION_DROPOUT:.0%} empty
captions; the shipped weights are the moving average after {int(log["step"].max()):,} steps.

![training loss](training.png)

Schedules:

```json
{json.dumps({name: asdict(schedule) for name, schedule in recipes.items()}, indent=1)}
```

## Measured on unseen scenes

Flow-matching loss ({_SCENES} scenes, 95% interval):

| sigma | loss |
|---|---|
{table}

The VAE restores clean scenes at {psnr[0]:.1f} dB PSNR and spoilt ones at {psnr[1]:.1f} dB (mean of 256).

## Limits

Shapes are rough and a caption is not always obeyed, as the grid shows. How often is not measured yet; that needs a
judge, which the project does not have so far.
"""
