"""Names of backbones, and what a name or a folder stands for before anything is loaded."""

from __future__ import annotations

import difflib
import inspect
import json
import reprlib
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from probing.backbones import stock
from probing.backbones.architecture import Architecture
from probing.backbones.folder_check import check_class, part_folders
from probing.backbones.folder_files import read_json, read_part_config, weight_files
from probing.backbones.part_configs import check_clip_length, check_config
from probing.backbones.part_weights import check_block_count, read_headers
from probing.backbones.parts import PARTS, Part
from probing.errors import UserError

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
        architecture = _known_architecture(entry)
    else:
        folder = _folder(name_or_path, list(entries))
        name = folder.resolve().name
        architecture = _read_folder(folder)
        entry = Entry(str(folder))
        for known, other in entries.items():
            if other.transformer is None and _same(architecture, _known_architecture(other)):
                # A folder of a registered model keeps the settings it is registered with.
                entry = replace(entry, resolution=other.resolution, t5_length=other.t5_length)
                if other.architecture is None and Path(other.source).resolve() == folder.resolve():
                    name, entry = known, other
                break
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


def _folder(name_or_path: str, known: list[str]) -> Path:
    try:
        folder = Path(name_or_path).expanduser()
        found = folder.is_dir()
    except (OSError, ValueError, RuntimeError):  # A name too long for a path, or ~ of an unknown user.
        found = False
    if not found:
        raise UserError(_unknown(name_or_path, known))
    return folder


def _known_architecture(entry: Entry) -> Architecture:
    if entry.architecture is None:
        return _read_folder(Path(entry.source))
    described = resources.files("probing.backbones") / "configs" / f"{entry.architecture}.json"
    return Architecture(**json.loads(described.read_text()))


def _same(one: Architecture, other: Architecture) -> bool:
    """Compare all that builds the transformer and the VAE; entries that a folder leaves out have their defaults."""
    unused = ("sample_size", "force_upcast", "latents_mean", "latents_std")
    vaes = [{k: v for k, v in _filled(stock.AutoencoderKL, a.vae).items() if k not in unused} for a in (one, other)]
    transformers = [_filled(stock.SD3Transformer2DModel, a.transformer) for a in (one, other)]
    return one.has_t5 == other.has_t5 and vaes[0] == vaes[1] and transformers[0] == transformers[1]


def _filled(cls: type, config: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(cls).parameters.items()
    default = {key: p.default for key, p in parameters if p.default is not p.empty}
    values = {key: config.get(key, value) for key, value in default.items()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def _read_transformer(folder: Path) -> dict[str, Any]:
    return _plain(_checked_config(folder, next(part for part in PARTS if part.kind == "transformer")))


def _checked_config(folder: Path, part: Part) -> dict[str, Any]:
    """Read a configuration, check its bounds, and compare its number of blocks with the weights, if they are there."""
    path = folder / part.config_name
    config = read_json(path) if part.kind == "transformer" else read_part_config(folder, part)
    if part.kind in ("transformer", "vae"):
        check_class(path, config, part)
    check_config(path, part.kind, config)
    if part.has_weights and any(folder.glob("*.safetensors")):
        check_block_count(folder, part, config, read_headers(weight_files(folder, part)))
    return config


def _read_folder(folder: Path) -> Architecture:
    folders = {part.name: (part, path) for part, path in part_folders(folder, use_t5=True).items()}
    has_t5 = "text_encoder_3" in folders
    encoders = {}
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3"):
        part, path = folders.get(name, (None, Path()))
        # A folder without T5 can be used with --no-t5, so its absence is found when it is needed.
        if part is not None and (path.is_dir() or not part.is_t5):
            encoders[part] = (path, _checked_config(path, part))
    clips = {path / part.config_name: config for part, (path, config) in encoders.items() if part.kind == "clip"}
    tokenizer = folder / "tokenizer" / "tokenizer_config.json"
    vae_part, vae = folders["vae"]
    return Architecture(
        transformer=_read_transformer(folder / "transformer"),
        vae=_plain(_checked_config(vae, vae_part)),
        clip_length=check_clip_length(tokenizer, read_json(tokenizer), clips),
        has_t5=has_t5,
        text_parameters=sum(_parameters_in(path, part) for part, (path, _) in encoders.items()),
    )


def _parameters_in(folder: Path, part: Part) -> int:
    """Count parameters from the headers of the files that are loaded."""
    if not any(folder.glob("*.safetensors")):
        return 0
    return sum(tensor.elements for tensor in read_headers(weight_files(folder, part)).values())


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """Drop what diffusers notes about files and versions, and keep what builds the model."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    meant = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}."
    return f"Unknown model {reprlib.repr(name)}, and no folder of that name: {meant}"
