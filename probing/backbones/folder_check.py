"""Check a pipeline folder part by part before any weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probing.backbones.base import Family, RandomInit
from probing.backbones.families import family_of
from probing.backbones.folder_files import read_json, read_part_config, weight_files
from probing.backbones.part_weights import check_weights
from probing.backbones.parts import Part, is_absent
from probing.backbones.tuning import check_single_file
from probing.errors import UserError

INDEX = "model_index.json"


def family_in(folder: Path) -> Family:
    """Return the family of a pipeline folder.

    Raises:
        UserError: The folder's index is missing, or gives an unsupported pipeline.
    """
    return family_of(folder, read_json(folder / INDEX))


def part_folders(folder: Path, *, use_t5: bool, transformer: Path | None = None) -> dict[Part, Path]:
    """List the parts that are loaded and their folders.

    Args:
        folder: The pipeline folder.
        use_t5: Whether optional parts are used, if they are there.
        transformer: Folder or single file of another transformer.

    Raises:
        UserError: The folder's index is missing, or gives an unsupported pipeline or part.
    """
    index = read_json(folder / INDEX)
    family = family_of(folder, index)
    check_index(folder / INDEX, index, family)
    return {
        part: transformer if part.kind == "transformer" and transformer is not None else folder / part.name
        for part in family.present_parts(index)
        if use_t5 or not part.is_optional
    }


def check_index(path: Path, index: Mapping[str, Any], family: Family) -> None:
    """Compare a pipeline's index with the classes that are supported.

    Args:
        path: The index, for the message.
        index: Its content.
        family: Of its pipeline class.

    Raises:
        UserError: A part is missing or has an unsupported class, or only some of the optional parts are there.
    """
    for part in family.parts:
        entry = index.get(part.name)
        if is_absent(entry):
            if not part.is_optional:
                raise UserError(f"{path} has no {part.name}, which this suite needs; give a complete pipeline folder.")
        elif not (isinstance(entry, list) and len(entry) == 2 and entry[1] in part.supported):
            name = entry[-1] if isinstance(entry, list) and entry else entry
            raise UserError(
                f"{path} gives {name!r:.80} as {part.name}, and supported is: {part.supported[0]}; "
                f"give a pipeline with that class."
            )
    optional = [part.name for part in family.parts if part.is_optional]
    if 0 < sum(is_absent(index.get(name)) for name in optional) < len(optional):
        raise UserError(f"{path} has only one of {' and '.join(sorted(optional))}; give both, or null for both.")


def read_configs(folders: Mapping[Part, Path]) -> dict[str, dict[str, Any]]:
    """Read and check the configuration of every part that is a folder.

    Raises:
        UserError: One is missing, not readable, or has an entry of another type or outside its bounds.
    """
    configs = {}
    for part, folder in folders.items():
        if folder.is_file():
            continue
        configs[part.name] = read_part_config(folder, part)
        part.check_config(folder / part.config_name, configs[part.name])
    return configs


def check_parts(
    folder: Path,
    *,
    use_t5: bool = True,
    random_init: RandomInit = False,
    transformer: Path | None = None,
    expected: Mapping[str, Mapping[str, Any]] | None = None,
    make_models: bool = True,
) -> dict[Part, Path]:
    """Check everything of a pipeline folder that can be checked before weights are read.

    Args:
        folder: The pipeline folder.
        use_t5: Whether optional parts are used, if they are there.
        random_init: The transformer's weights are not loaded, and its folder may be missing; or ``all``: those of no
            part are.
        transformer: Folder or single file of another transformer; a file takes the configuration of the model's own.
        expected: Configurations that some parts must have, by part.
        make_models: As ``make_model`` of :func:`probing.backbones.part_weights.check_weights`.

    Returns:
        The parts that are loaded and their folders.

    Raises:
        UserError: The first fault, with the file and the fix.
    """
    folders = part_folders(folder, use_t5=use_t5, transformer=transformer)
    if random_init and random_init != "all":
        folders = {part: path for part, path in folders.items() if part.kind != "transformer" or path.is_dir()}
    configs = read_configs(folders)
    for name, config in (expected or {}).items():
        _check_expected(name, config, configs.get(name, {}), folder)
    family_in(folder).check_fit(folder, configs)
    for part, path in folders.items():
        skipped = random_init and part.kind == "transformer" and not any(path.glob("*.safetensors"))
        if path.is_file():
            check_single_file(path)
        elif part.has_weights and not skipped and random_init != "all":
            check_weights(path, part, configs[part.name], weight_files(path, part), make_model=make_models)
    return folders


def _check_expected(name: str, expected: Mapping[str, Any], config: Mapping[str, Any], folder: Path) -> None:
    for key in sorted(set(expected) & set(config)):
        if expected[key] != config[key]:
            raise UserError(
                f"The {name} in {folder} has {key} = {config[key]!r:.80}, and the registered model has "
                f"{expected[key]!r:.80}; give the folder's path as --model."
            )
