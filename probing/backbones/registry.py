"""Names of backbones, and what a name or a folder describes before anything is loaded."""

from __future__ import annotations

import difflib
import reprlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from probing.backbones.architecture import Architecture
from probing.backbones.base import BackboneSpec, Entry, Family
from probing.backbones.families import families
from probing.backbones.folder_check import family_in, part_folders
from probing.backbones.folder_files import read_json, read_part_config, weight_files
from probing.backbones.part_weights import check_block_count, read_headers
from probing.backbones.parts import Part, plain_config
from probing.backbones.tuning import UNCHANGED, Tuning
from probing.errors import UserError
from probing.shipped import WEIGHTS

_CAPTION_LENGTH = 20
"""Positions of T5 that the testbed's longest caption needs."""


def _entries() -> dict[str, tuple[Family, Entry]]:
    entries = {name: (family, entry) for family in families() for name, entry in family.entries.items()}
    # Further trainings of a size of the testbed take its pipeline with another transformer.
    testbed = {
        path.parent.name: (family_in(path.parent), Entry(str(path.parent), text_length=_CAPTION_LENGTH))
        for path in sorted(WEIGHTS.glob("*/model_index.json"))
    }
    for config in sorted(WEIGHTS.glob("trainings/*/config.json")):
        family, entry = testbed[config.parent.name.split("-")[0]]
        testbed[config.parent.name] = family, replace(entry, transformer=str(config.parent))
    return entries | {f"testbed-{name}": entry for name, entry in testbed.items()}


def model_names() -> list[str]:
    """Return the names of all registered backbones."""
    return list(_entries())


def resolve(name_or_path: str, tuning: Tuning = UNCHANGED) -> BackboneSpec:
    """Describe a registry name or a diffusers pipeline folder; reads JSON files and headers of weights only.

    Args:
        name_or_path: A registry name, or a pipeline folder.
        tuning: Weights that change its transformer.

    Raises:
        UserError: Unknown name, a folder that is no pipeline or no transformer, or one of an unsupported family.
    """
    entries = _entries()
    if name_or_path in entries:
        name = name_or_path
        family, entry = entries[name]
        architecture = _architecture_of(family, entry)
    else:
        folder = _folder(name_or_path, list(entries))
        name, family, architecture = folder.resolve().name, family_in(folder), _read_folder(folder)
        entry = Entry(str(folder))
        for registered, (other_family, candidate) in entries.items():
            if candidate.transformer is None and architecture.matches(_architecture_of(other_family, candidate)):
                # A folder of a registered model keeps the settings it is registered with.
                entry = replace(entry, resolution=candidate.resolution, text_length=candidate.text_length)
                if candidate.architecture is None and Path(candidate.source).resolve() == folder.resolve():
                    name, entry = registered, candidate
                break
    tuning.check()
    names = "+".join([name, *tuning.names])
    if tuning.transformer is None and entry.transformer is not None:
        tuning = replace(tuning, transformer=Path(entry.transformer))
    if tuning.transformer is not None and tuning.transformer.is_dir():
        architecture = architecture.with_transformer(_read_transformer(family, tuning.transformer))
    return BackboneSpec(
        name=names,
        source=entry.source,
        architecture=architecture,
        resolution=entry.resolution or architecture.native_resolution,
        t5_length=family.text_length if entry.text_length is None else entry.text_length,
        tuning=tuning,
        packaged=entry.architecture,
        family=family,
    )


def _folder(name_or_path: str, names: list[str]) -> Path:
    try:
        folder = Path(name_or_path).expanduser()
        exists = folder.is_dir()
    except (OSError, ValueError, RuntimeError):  # A name too long for a path, or ~ of an unknown user.
        exists = False
    if not exists:
        raise UserError(_unknown(name_or_path, names))
    return folder


def _architecture_of(family: Family, entry: Entry) -> Architecture:
    if entry.architecture is None:
        return _read_folder(Path(entry.source))
    return family.packaged_architecture(entry.architecture)


def _read_transformer(family: Family, folder: Path) -> dict[str, Any]:
    part = family.transformer
    return plain_config(_checked_config(part, folder, read_json(folder / part.config_name)))


def _checked_config(part: Part, folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Check a configuration, and compare its number of blocks with the weights, if they are there."""
    part.check_config(folder / part.config_name, config)
    if part.has_weights and any(folder.glob("*.safetensors")):
        check_block_count(folder, part, config, read_headers(weight_files(folder, part)))
    return config


def _read_folder(folder: Path) -> Architecture:
    folders = part_folders(folder, use_t5=True)
    # A folder without an optional part can be used without it, so its absence is reported when it is needed.
    configs = {
        part.name: _checked_config(part, path, read_part_config(path, part))
        for part, path in folders.items()
        if path.is_dir() or not part.is_optional
    }
    return family_in(folder).read_architecture(
        folder,
        configs,
        names={part.name for part in folders},
        text_parameters=sum(
            _parameters_in(path, part) for part, path in folders.items() if part.kind == "text_encoder"
        ),
    )


def _parameters_in(folder: Path, part: Part) -> int:
    """Count parameters from the headers of the files that are loaded."""
    if not any(folder.glob("*.safetensors")):
        return 0
    return sum(tensor.elements for tensor in read_headers(weight_files(folder, part)).values())


def _unknown(name: str, names: list[str]) -> str:
    if name.startswith("testbed") and not WEIGHTS.is_dir():
        return (
            f"The testbed's weights are not installed, so there is no {name:.80}; work in a clone of the project, or "
            f"install its folder testbed-weights."
        )
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    suggestion = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}."
    return f"Unknown model {reprlib.repr(name)}, and no folder of that name: {suggestion}"
