"""Put the trained parts together as stock ``StableDiffusion3Pipeline`` folders, in half precision.

Each size is a whole pipeline. Its other trainings (further seeds, and weights kept along the way) are transformers
alone, which take the place of the pipeline's own.
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
from probing.testbed.recipes import mmdit
from probing.testbed.recipes.loop import Schedule
from probing.testbed.sizes import run_name

WEIGHTS = Path(__file__).parents[1] / "weights"
"""Where the registry looks for them."""
TRAININGS = "trainings"
FOLLOWED = "xs"
"""The size whose weights along the way are shipped."""
LARGEST_FILE = "14MB"


def run(runs: Path, size: str, seed: int, weights: Path = WEIGHTS) -> list[Path]:
    """Save what one finished training gave, with its record and the very encoders and tokenizers that it heard.

    Of :data:`FOLLOWED` the transformers along the way take the place of all that lay there, for they are of one
    training.

    Returns:
        The folders written: the pipeline and, of :data:`FOLLOWED`, the transformers along the way; or the one
        transformer of a further seed.

    Raises:
        UserError: The training is not finished.
    """
    name = run_name(size, seed)
    trained = runs / f"mmdit-{name}"
    if not (trained / mmdit.RECORD).exists():
        raise UserError(
            f"{trained} holds no finished training; python -m probing.testbed.train mmdit --size {size} --seed {seed} "
            f"makes it."
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
    for step in mmdit.kept(Schedule(**record["schedule"])):
        transformer = mmdit.build(size)
        transformer.load_state_dict(load_file(trained / f"mmdit-step{step:05d}.safetensors"))
        written.append(_save(transformer, weights / TRAININGS / f"{size}-step{step:05d}", {**record, "steps": step}))
    return written


def unpack(folder: Path, runs: Path) -> None:
    """Lay a shipped pipeline's VAE, text encoders and tokenizers where the recipes look for them.

    So another MMDiT can be trained beside the shipped ones without training these again; they are rounded as on
    disk.
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
    for place, part in parts.items():
        part.save_pretrained(runs / place)


def _save(transformer: SD3Transformer2DModel, folder: Path, record: dict[str, Any]) -> Path:
    torch.nn.Module.to(transformer, torch.float16).save_pretrained(folder, max_shard_size=LARGEST_FILE)
    return _save_record(folder, record)


def _save_record(folder: Path, record: dict[str, Any]) -> Path:
    (folder / mmdit.RECORD).write_text(json.dumps(record, indent=1) + "\n")
    # A card that lay here was of other weights.
    (folder / "card.json").unlink(missing_ok=True)
    return folder


def _save_pipeline(runs: Path, transformer: SD3Transformer2DModel, folder: Path, record: dict[str, Any]) -> Path:
    said = mmdit.Captions(runs)
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=AutoencoderKL.from_pretrained(runs / "vae" / "vae"),
        text_encoder=said.clips[0],
        tokenizer=said.tokenizer,
        text_encoder_2=said.clips[1],
        tokenizer_2=said.tokenizer,
        text_encoder_3=said.t5,
        tokenizer_3=said.t5_tokenizer,
    ).to(torch.float16)
    pipeline.save_pretrained(folder, max_shard_size=LARGEST_FILE)
    for path in folder.glob("text_encoder*/config.json"):
        # Transformers loads in the dtype that is written here, diffusers in float32: a call without dtype needs both.
        path.write_text(json.dumps({**json.loads(path.read_text()), "dtype": "float32"}, indent=2) + "\n")
    return _save_record(folder, record)
