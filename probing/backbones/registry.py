"""Names of backbones, and what a name or a folder stands for before anything is loaded."""

from __future__ import annotations

import difflib
import json
import math
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import safe_open

from probing.backbones.architecture import Architecture
from probing.errors import UserError

SUPPORTED_PIPELINES = ("StableDiffusion3Pipeline",)
SUPPORTED_TRANSFORMERS = ("SD3Transformer2DModel",)
T5_LENGTH = 256
"""Positions of the T5 part of the text, as in a stock call of the pipeline."""


@dataclass(frozen=True)
class Entry:
    """A backbone that can be asked for by name.

    Attributes:
        source: Where ``from_pretrained`` finds it: a hub id, or a folder.
        resolution: Side of the images in pixels, unless the user says otherwise.
        t5_length: Positions of the T5 part of the text.
        architecture: Name of the configuration the project carries (None: read it from the folder).
        transformer: Folder of another transformer than the pipeline's own.
    """

    source: str
    resolution: int | None = None
    t5_length: int = T5_LENGTH
    architecture: str | None = None
    transformer: str | None = None


def _entries() -> dict[str, Entry]:
    entries = {
        "sd3-medium": Entry("stabilityai/stable-diffusion-3-medium-diffusers", 512, architecture="sd3-medium"),
        "sd35-medium": Entry("stabilityai/stable-diffusion-3.5-medium", 512, architecture="sd35-medium"),
        "sd35-large": Entry("stabilityai/stable-diffusion-3.5-large", 512, architecture="sd35-large"),
        "sd35-large-turbo": Entry("stabilityai/stable-diffusion-3.5-large-turbo", 512, architecture="sd35-large"),
    }
    # The testbed's captions need 20 positions of T5. Further trainings of a size take its pipeline with another
    # transformer.
    weights = Path(str(resources.files("probing"))) / "testbed" / "weights"
    for index in sorted(weights.glob("*/model_index.json")):
        entries[f"testbed-{index.parent.name}"] = Entry(str(index.parent), t5_length=20)
    for config in sorted(weights.glob("trainings/*/config.json")):
        name = config.parent.name
        source = str(weights / name.split("-")[0])
        entries[f"testbed-{name}"] = Entry(source, t5_length=20, transformer=str(config.parent))
    return entries


def model_names() -> list[str]:
    return list(_entries())


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone that was asked for: where it is, how it is built, how it is called by default."""

    name: str
    source: str
    architecture: Architecture
    resolution: int
    t5_length: int
    transformer: str | None = None


def resolve(name_or_path: str, transformer: Path | None = None) -> BackboneSpec:
    """Find what a registry name or a diffusers pipeline folder stands for; reads JSON files only.

    Args:
        name_or_path: A registry name, or a pipeline folder.
        transformer: Folder of a transformer to take the place of the pipeline's own, such as a fine-tuned one.

    Raises:
        UserError: Unknown name, a folder that is no pipeline or no transformer, or one of an unsupported family.
    """
    entries = _entries()
    if name_or_path in entries:
        entry = entries[name_or_path]
        name = name_or_path
    else:
        folder = Path(name_or_path).expanduser()
        if not folder.is_dir():
            raise UserError(_unknown(name_or_path, list(entries)))
        # A registered folder given by its path keeps the settings it is registered with.
        same = {Path(e.source).resolve(): n for n, e in entries.items() if not (e.architecture or e.transformer)}
        name = same.get(folder.resolve(), folder.resolve().name)
        entry = entries.get(name, Entry(str(folder)))
    if entry.architecture is not None:
        described = resources.files("probing.backbones") / "configs" / f"{entry.architecture}.json"
        architecture = Architecture(**json.loads(described.read_text()))
    else:
        architecture = _read_folder(Path(entry.source))
    replacing = entry.transformer if transformer is None else str(transformer)
    if replacing is not None:
        architecture = replace(architecture, transformer=_read_transformer(Path(replacing)))
    return BackboneSpec(
        name=name if transformer is None else f"{name}+{transformer.resolve().name}",
        source=entry.source,
        architecture=architecture,
        resolution=entry.resolution or architecture.native_resolution,
        t5_length=entry.t5_length,
        transformer=replacing,
    )


def _read_transformer(folder: Path) -> dict[str, Any]:
    config = _read_json(folder / "config.json")
    family = config.get("_class_name")
    if family not in SUPPORTED_TRANSFORMERS:
        raise UserError(f"{folder} holds a {family}, and supported are: {', '.join(SUPPORTED_TRANSFORMERS)}.")
    return _plain(config)


def _read_folder(folder: Path) -> Architecture:
    index = _read_json(folder / "model_index.json")
    family = index.get("_class_name")
    if family not in SUPPORTED_PIPELINES:
        raise UserError(f"{folder} holds a {family}, and supported are: {', '.join(SUPPORTED_PIPELINES)}.")
    tokenizer = _read_json(folder / "tokenizer" / "tokenizer_config.json")
    return Architecture(
        transformer=_plain(_read_json(folder / "transformer" / "config.json")),
        vae=_plain(_read_json(folder / "vae" / "config.json")),
        clip_length=int(tokenizer.get("model_max_length", 77)),
        has_t5=bool((index.get("text_encoder_3") or [None])[0]),
        text_parameters=sum(
            _parameters_in(folder / name) for name in ("text_encoder", "text_encoder_2", "text_encoder_3")
        ),
    )


def _parameters_in(folder: Path) -> int:
    """Count parameters from the headers of a folder's safetensors files (the first variant of each)."""
    count = 0
    for path in sorted(folder.glob("*.safetensors")):
        if ".fp16." in path.name and path.with_name(path.name.replace(".fp16.", ".")).exists():
            continue
        with safe_open(path, framework="numpy") as file:
            count += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    return count


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: a model folder is what diffusers' save_pretrained writes.") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is no valid JSON ({error}); copy the file again.") from None


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """Drop what diffusers notes about files and versions, and keep what builds the model."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}."
    return f"Unknown model {name!r}, and no folder of that name: {meant}"
