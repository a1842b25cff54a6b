"""The cards: what the weights are, how they came to be, what they draw; measured on the finished folders.

``card.json`` holds what was measured, ``README.md`` says it to a person. All trainings are measured on the same unseen
scenes under the same noise.
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
from probing.testbed.judge import accuracy_table, judged_accuracy
from probing.testbed.recipes import mmdit, text, vae
from probing.testbed.recipes.assemble import TRAININGS, WEIGHTS
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
    """Measure a size's pipeline and its other trainings, draw ``samples.png`` and ``training.png``, write the cards.

    The curve of the training is drawn from its log in ``runs``; where that is not, the curve that is there stays.

    Raises:
        UserError: A folder lacks the record of its training.
    """
    folder = weights / size
    others = sorted((weights / TRAININGS).glob(f"{size}-*"))
    records = {path: _record(path) for path in [folder, *others]}
    for path in others:
        pipeline = load_pipeline(folder, path)
        _write_json(path / "card.json", measure(pipeline, size, records[path]))
    pipeline = load_pipeline(folder)
    draw_samples(pipeline).savefig(folder / "samples.png", dpi=110, metadata={"Software": None})
    log = runs / f"mmdit-{size}" / "log.jsonl"
    if log.exists():
        curve = pd.read_json(log, lines=True).drop_duplicates("step", keep="last")
        draw_training(curve).savefig(folder / "training.png", dpi=110, metadata={"Software": None})
    measured = {
        **measure(pipeline, size, records[folder]),
        "parts": {
            name: sum(p.numel() for p in getattr(pipeline, name).parameters())
            for name in ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
        },
        "psnr": dict(zip(("clean", "spoilt"), restored_psnr(pipeline), strict=True)),
        "bytes": sum(file.stat().st_size for file in folder.rglob("*.safetensors")),
    }
    _write_json(folder / "card.json", measured)
    card = folder / "README.md"
    card.write_text(_text(measured))
    return card


def load_pipeline(folder: Path | str, transformer: Path | str | None = None) -> StableDiffusion3Pipeline:
    """Load a pipeline in float32, with another transformer where the model is another training of a size."""
    replaced = {}
    if transformer is not None:
        replaced["transformer"] = SD3Transformer2DModel.from_pretrained(transformer, torch_dtype=torch.float32)
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.float32, **replaced)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _record(folder: Path) -> dict[str, Any]:
    path = folder / mmdit.RECORD
    if not path.exists():
        raise UserError(f"{path} is missing, which says how these weights were trained; assemble them again.")
    return json.loads(path.read_text())


def measure(pipeline: StableDiffusion3Pipeline, size: str, record: dict[str, Any]) -> dict[str, Any]:
    """Measure held-out loss by noise level, what it tells apart, and how often the judge finds what a caption says.

    Args:
        pipeline: Of the size, with the transformer that is measured.
        size: Which of the family.
        record: Of the transformer's training.

    Returns:
        The card, the record in it. ``chance`` is what the judge finds in the same pictures of another picture's
        caption.
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
        "told_apart": told_apart(pipeline, scenes, losses[:, :_JUDGED]).to_dict("records"),
        "judged": judged_accuracy(images, captions).to_dict("records"),
        "chance": judged_accuracy(images, [*captions[1:], captions[0]]).to_dict("records"),
    }


def _write_json(path: Path, measured: dict[str, Any]) -> None:
    path.write_text(json.dumps(measured, indent=1) + "\n")


@torch.inference_mode()
def generate(pipeline: StableDiffusion3Pipeline, captions: list[str], seed: int = 0) -> list:
    """Generate by stock calls, with the arguments that the card states."""
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
    """Draw captions that no training scene has."""
    rng = np.random.default_rng(_HELD_OUT)
    return [sample_held_out(rng).caption for _ in range(count)]


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
    ax.plot(log["step"], log["loss"], color="#0072B2")
    ax.set(xlabel="training step", ylabel="flow-matching loss,\nmean of 50 steps", yscale="log")
    ticks = [1, 0.5, 0.3, 0.2, 0.15]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.spines[["top", "right"]].set_visible(False)
    return figure


@dataclass(frozen=True)
class HeldOut:
    """Held-out scenes as a pipeline sees them: latents and noise (scene, 8, 16, 16)."""

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
        """Compute the flow-matching losses (noise level, scene), of all scenes or of those given other captions."""
        told = dict(enumerate(self.captions)) if captions is None else captions
        losses = []
        for numbers in torch.tensor(list(told)).split(_BATCH):
            tokens, _, pooled, _ = pipeline.encode_prompt(
                [told[number] for number in numbers.tolist()],
                None,
                None,
                do_classifier_free_guidance=False,
                max_sequence_length=text.T5_LENGTH,
            )
            seen = self.latents[numbers], tokens, pooled
            levels = [torch.full((len(numbers),), sigma) for sigma in _SIGMAS]
            noise = self.noise[numbers]
            losses.append([mmdit.flow_matching_loss(pipeline.transformer, *seen, level, noise) for level in levels])
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


def told_apart(pipeline: StableDiffusion3Pipeline, scenes: HeldOut, own: torch.Tensor) -> pd.DataFrame:
    """Measure how often a scene's loss, mean over the noise levels, is lower under its own caption than another.

    The other contradicts it in one attribute. All see the same noise, so chance is one half. This is the diffusion
    classifier of Li et al. (2023): what the model knows of words, whether or not it can draw it.

    Args:
        pipeline: What is measured.
        scenes: Held out.
        own: The losses (noise level, scene) under the own captions, of the first scenes: only these are measured.

    Returns:
        As :func:`probing.testbed.judge.accuracy_table`; the whole caption counts if no contradiction has a lower loss.
    """
    captions = scenes.captions[: own.shape[1]]
    told: list[dict[str, bool]] = [{} for _ in captions]
    rng = np.random.default_rng([_HELD_OUT, 4])
    for attribute in ATTRIBUTES:
        said = {number: scene for number, scene in enumerate(map(parse, captions)) if attribute in attributes_of(scene)}
        if not said:
            continue
        wrong = {number: contradict(scene, attribute, rng).caption for number, scene in said.items()}
        for number, other in zip(wrong, scenes.losses(pipeline, wrong).mean(dim=0), strict=True):
            told[number][attribute] = bool(own[:, number].mean() < other)
    return accuracy_table(told, captions)


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


def _text(card: dict[str, Any]) -> str:
    size, shape = card["size"], SIZES[card["size"]]
    parts = "\n".join(f"| {name} | {count:,} |" for name, count in card["parts"].items())
    losses = "\n".join(
        f"| {'mean' if row['sigma'] is None else format(row['sigma'], 'g')} "
        f"| {row['loss']:.4f} ± {row['half_width']:.4f} |"
        for row in card["held_out_loss"]
    )
    judged = "\n".join(
        f"| {row['attribute']} | {_interval(told)} | {_interval(row)} | {_interval(chance)} |"
        for told, row, chance in zip(card["told_apart"], card["judged"], card["chance"], strict=True)
    )
    dual = f", the first {shape.dual} of them with dual attention," if shape.dual else ""
    schedules = {"vae": vae.SCHEDULE, "CLIP": text.SCHEDULE, "T5": text.T5_SCHEDULE}
    said = {name: asdict(schedule) for name, schedule in schedules.items()} | {"mmdit": card["schedule"]}
    return f"""# testbed-{size}

A complete, small text-to-image model of Stable Diffusion 3.5's classes, trained from nothing on captioned scenes.
It is here so that probes can be tried, tested and believed on any laptop; it is good for nothing else.

| part | parameters |
|---|---|
{parts}

The MMDiT has {shape.blocks} blocks{dual} of {shape.heads} heads × 32 = {32 * shape.heads} channels, query and key norms,
patch 2 on latents of 8×16×16: 64 image tokens, {text.CAPTION_LENGTH} CLIP and {text.T5_LENGTH} T5 tokens. All weights
together: {card["bytes"] / 1e6:.1f} MB, float16. VAE and text encoders are the same in all sizes.

## Use

```python
from diffusers import StableDiffusion3Pipeline

pipeline = StableDiffusion3Pipeline.from_pretrained("probing/testbed/weights/{size}")
pipeline(
    "{held_out_captions(1)[0]}",
    max_sequence_length={text.T5_LENGTH},
    num_inference_steps={STEPS},
    guidance_scale={GUIDANCE},
)
```

`max_sequence_length={text.T5_LENGTH}` matters: a stock call pads the T5 part to 256 positions, and this model never saw so
many. Captions are those of `probing/testbed/scenes.py`, e.g. "{held_out_captions(3)[2]}".

![captions that were not chosen by hand, one generated picture each](samples.png)

## Training

`python -m probing.testbed.train vae`, then `text`, `mmdit`, `assemble` and `card`; float16 on disk is the only change
after training. The MMDiT saw {SCENES:,} rendered scenes, logit-normal noise levels (their logits have mean {card["noise_mean"]:g} and
variance 1) and {mmdit.CAPTION_DROPOUT:.0%} empty captions; the shipped weights are the moving average
after {card["steps"]:,} steps. It was computed in {card["computed_in"]}. All sizes have the same schedule.

![training loss](training.png)

Schedules:

```json
{json.dumps(said, indent=1)}
```

## Measured on scenes that no training caption describes

Flow-matching loss ({_SCENES} scenes, 95% interval):

| sigma | loss |
|---|---|
{losses}

Known: how often the loss of a scene, mean over these levels, is lower under its own caption than under one that
contradicts it in that attribute (chance is 50%, and less of whole captions, where no contradiction may have a lower
loss). Drawn: how often what the judge reads in a generated picture agrees with its caption, and with another
picture's. {_JUDGED} captions each, 95% intervals; the last row but one counts every attribute of every caption alike:

| | known | drawn | drawn, another's caption |
|---|---|---|---|
{judged}

The VAE restores clean scenes at {card["psnr"]["clean"]:.1f} dB PSNR and spoilt ones at {card["psnr"]["spoilt"]:.1f} dB (mean of 256).
"""


def _interval(row: dict[str, Any]) -> str:
    return f"{row['accuracy']:.1%} [{row['ci_low']:.1%}, {row['ci_high']:.1%}]"
