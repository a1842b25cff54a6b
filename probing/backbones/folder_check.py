"""Check a pipeline folder part by part before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probing.backbones.folder_files import read_json, read_part_config, weight_files
from probing.backbones.part_configs import check_clip_length, check_config, check_partners
from probing.backbones.part_weights import check_weights
from probing.backbones.parts import PARTS, Part, check_index, has_t5
from probing.errors import UserError

INDEX = "model_index.json"


def part_folders(folder: Path, *, use_t5: bool, transformer: Path | None = None) -> dict[Part, Path]:
    """List the parts that are loaded and their folders.

    Args:
        folder: The pipeline folder.
        use_t5: Whether the third text encoder is used, if there is one.
        transformer: Folder of another transformer.

    Raises:
        UserError: The folder's index is missing, or of an unsupported pipeline.
    """
    index = read_json(folder / INDEX)
    check_index(folder / INDEX, index)
    with_t5 = use_t5 and has_t5(index)
    return {
        part: transformer if part.kind == "transformer" and transformer is not None else folder / part.name
        for part in PARTS
        if with_t5 or not part.is_t5
    }


def read_configs(folders: Mapping[Part, Path]) -> dict[str, dict[str, Any]]:
    """Read and check the configuration of every part.

    Raises:
        UserError: One is missing, not readable, or has an entry of another type or outside its bounds.
    """
    configs = {}
    for part, folder in folders.items():
        config = read_part_config(folder, part)
        if part.has_weights and part.kind in ("transformer", "vae"):
            check_class(folder / part.config_name, config, part)
        check_config(folder / part.config_name, part.kind, config)
        configs[part.name] = config
    return configs


def check_class(path: Path, config: Mapping[str, Any], part: Part) -> None:
    """Check the class that a diffusers model notes in its configuration.

    Raises:
        UserError: It is another one than the part's.
    """
    family = config.get("_class_name")
    if family not in part.classes:
        raise UserError(f"{path.parent} holds a {family!s:.80}, and supported are: {', '.join(part.classes)}.")


def check_parts(
    folder: Path,
    *,
    use_t5: bool = True,
    random_init: bool = False,
    transformer: Path | None = None,
    expected: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[Part, Path]:
    """Check everything of a pipeline folder that can be checked before weights are read.

    Args:
        folder: The pipeline folder.
        use_t5: Whether the third text encoder is used, if there is one.
        random_init: The transformer's weights are not loaded; its folder may be missing.
        transformer: Folder of another transformer.
        expected: Configurations that the transformer and the VAE must have, by their names.

    Returns:
        The parts that are loaded and their folders.

    Raises:
        UserError: The first fault; the file and the mend are named.
    """
    folders = part_folders(folder, use_t5=use_t5, transformer=transformer)
    if random_init:
        folders = {part: path for part, path in folders.items() if part.kind != "transformer" or path.is_dir()}
    configs = read_configs(folders)
    for name, wanted in (expected or {}).items():
        _check_expected(name, wanted, configs.get(name, {}), folder)
    if "transformer" in configs:
        check_partners(configs)
    clips = {path / part.config_name: configs[part.name] for part, path in folders.items() if part.kind == "clip"}
    check_clip_length(folder / "tokenizer" / "tokenizer_config.json", configs["tokenizer"], clips)
    for part, path in folders.items():
        skipped = random_init and part.kind == "transformer" and not any(path.glob("*.safetensors"))
        if part.has_weights and not skipped:
            check_weights(path, part, configs[part.name], weight_files(path, part))
    return folders


def _check_expected(name: str, wanted: Mapping[str, Any], found: Mapping[str, Any], folder: Path) -> None:
    for key in sorted(set(wanted) & set(found)):
        if wanted[key] != found[key]:
            raise UserError(
                f"The {name} in {folder} has {key} = {found[key]!r:.80}, and this model is known with "
                f"{wanted[key]!r:.80}; give the folder's path as --model."
            )
