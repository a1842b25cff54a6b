"""Save the trained parts as stock ``StableDiffusion3Pipeline`` folders, in half precision.

Each size is a whole pipeline. Its other trainings (further seeds, and checkpoints along the training) are transformers
only, to be loaded instead of the pipeline's own.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors.torch import load_file

from probing.errors import UserError
from probing.files import write_text
from probing.shipped import WEIGHTS
from probing.testbed.recipes import mmdit
from probing.testbed.recipes.loop import Schedule
from probing.testbed.sizes import run_name

TRAININGS = "trainings"
FOLLOWED = "xs"
"""The size whose checkpoints along the training are shipped."""
LARGEST_FILE = "14MB"


def run(runs: Path, size: str, seed: int, weights: Path = WEIGHTS) -> list[Path]:
    """Save one finished training, with its record and the encoders and tokenizers it was trained with.

    For the first seed of :data:`FOLLOWED`, also save the checkpoints along the training; they replace all earlier ones.

    Returns:
        The folders written: the pipeline and its checkpoints, or the one transformer of a further seed.

    Raises:
        UserError: The training is not finished.
    """
    name = run_name(size, seed)
    trained = runs / f"mmdit-{name}"
    if not (trained / mmdit.RECORD).exists():
        raise UserError(
            f"{trained} holds no finished training; run python -m probing.testbed.train mmdit --size {size} "
            f"--seed {seed} first."
        )
    record = json.loads((trained / mmdit.RECORD).read_text())
    transformer = SD3Transformer2DModel.from_pretrained(trained / "transformer")
    if seed:
        return [_save(transformer, weights / TRAININGS / name, record)]
    written = [_save_pipeline(runs, transformer, weights / size, record)]
    if size != FOLLOWED:
        return written
    for earlier in (weights / TRAININGS).glob(f"{size}-step*"):
        shutil.rmtree(earlier)
    for step in mmdit.checkpoint_steps(Schedule(**record["schedule"])):
        transformer = mmdit.build(size)
        transformer.load_state_dict(load_file(trained / f"mmdit-step{step:05d}.safetensors"))
        written.append(_save(transformer, weights / TRAININGS / f"{size}-step{step:05d}", {**record, "steps": step}))
    return written


def unpack(folder: Path, runs: Path) -> None:
    """Copy the VAE, text encoders and tokenizers of a shipped pipeline to where the recipes expect them.

    Use this to train another MMDiT without training these again. Their weights are rounded to half precision.
    """
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.float32)
    parts = {
        "vae/vae": pipeline.vae,
        "tokenizer": pipeline.tokenizer,
        "text_encoder/text_encoder": pipeline.text_encoder,
        "text_encoder_2/text_encoder_2": pipeline.text_encoder_2,
        "text_encoder_3/text_encoder_3": pipeline.text_encoder_3,
        "text_encoder_3/tokenizer": pipeline.tokenizer_3,
    }
    for path, part in parts.items():
        part.save_pretrained(runs / path)


def _save(transformer: SD3Transformer2DModel, folder: Path, record: dict[str, Any]) -> Path:
    torch.nn.Module.to(transformer, torch.float16).save_pretrained(folder, max_shard_size=LARGEST_FILE)
    return _save_record(folder, record)


def _save_record(folder: Path, record: dict[str, Any]) -> Path:
    write_text(folder / mmdit.RECORD, json.dumps(record, indent=1) + "\n")
    # An existing card describes other weights.
    (folder / "card.json").unlink(missing_ok=True)
    return folder


def _save_pipeline(runs: Path, transformer: SD3Transformer2DModel, folder: Path, record: dict[str, Any]) -> Path:
    encoders = mmdit.Captions(runs)
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=AutoencoderKL.from_pretrained(runs / "vae" / "vae"),
        text_encoder=encoders.clips[0],
        tokenizer=encoders.tokenizer,
        text_encoder_2=encoders.clips[1],
        tokenizer_2=encoders.tokenizer,
        text_encoder_3=encoders.t5,
        tokenizer_3=encoders.t5_tokenizer,
    ).to(torch.float16)
    pipeline.save_pretrained(folder, max_shard_size=LARGEST_FILE)
    for path in folder.glob("text_encoder*/config.json"):
        # Without a dtype, transformers loads in the dtype of this file, diffusers in float32: make both agree.
        path.write_text(json.dumps({**json.loads(path.read_text()), "dtype": "float32"}, indent=2) + "\n")
    return _save_record(folder, record)
