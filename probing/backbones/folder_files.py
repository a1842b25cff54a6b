"""Read the files of a model folder: bounded JSON, and the weight files that the libraries load."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from probing.backbones.parts import Part
from probing.errors import UserError

_LARGEST_JSON = 16 * 2**20
_DEEPEST_JSON = 20
VARIANTS = (None, "fp16", "bf16")
"""Variants of weight files, first choice first; None is the plain file."""


@dataclass(frozen=True)
class WeightFiles:
    """The weight files of one part that ``from_pretrained`` loads.

    Attributes:
        files: One file, or all shards.
        variant: The variant to load, None for plain files.
        index: The list of shards, if there are shards.
    """

    files: tuple[Path, ...]
    variant: str | None
    index: Path | None = None


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        UserError: The file is missing, is no JSON object, holds NaN or an infinity, or is too large or too deep.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: a model folder is what diffusers' save_pretrained writes.")
    try:
        size = path.stat().st_size
        if size > _LARGEST_JSON:
            raise UserError(f"{path} has {size} bytes, and a configuration has at most {_LARGEST_JSON}; copy it again.")
        content = json.loads(path.read_bytes().decode("utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); repair the file or its permissions.") from error
    except RecursionError:
        raise UserError(f"{path} is nested too deeply for a configuration; copy the file again.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is no valid JSON (it is not UTF-8 text); copy the file again.") from None
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{path} is no valid JSON ({error}); copy the file again.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a JSON {type(content).__name__}, and an object is needed; copy the file again.")
    if _deeper_than(content, _DEEPEST_JSON):
        raise UserError(f"{path} is nested too deeply for a configuration; copy the file again.")
    return content


def read_part_config(folder: Path, part: Part) -> dict[str, Any]:
    """Read the configuration of a part.

    Raises:
        UserError: The folder or the file is missing, or not readable.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: {how_to_get(part)}.")
    return read_json(folder / part.config_name)


def weight_files(folder: Path, part: Part) -> WeightFiles:
    """Find the weight files of a part: plain before a variant, safetensors only.

    Raises:
        UserError: There are none, or a shard is missing.
    """
    for variant in VARIANTS:
        mark = "" if variant is None else f".{variant}"
        single = folder / f"{part.weights_stem}{mark}.safetensors"
        index = folder / f"{part.weights_stem}.safetensors.index{mark}.json"
        # With both, diffusers takes the shards and transformers the single file.
        sharded = index.is_file() and not (part.weights_stem == "model" and single.is_file())
        if sharded:
            return WeightFiles(_shards(index), variant, index)
        if single.is_file():
            return WeightFiles((single,), variant)
    if any(folder.glob("*.bin")):
        raise UserError(
            f"{folder} has its weights in pickled .bin files only, which are not loaded: load the pipeline by "
            f"diffusers and write it again with save_pretrained, which makes safetensors files."
        )
    raise UserError(f"{folder / part.weights_stem}.safetensors is missing: {how_to_get(part)}.")


def how_to_get(part: Part) -> str:
    """Return the fix for a missing part, for messages."""
    return f"copy it, or {part.without}" if part.is_optional else "copy the model folder again"


def _shards(index: Path) -> tuple[Path, ...]:
    names = sorted({str(name) for name in weight_map(index).values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(f"{index} names {name!r:.80}, which is no safetensors file of its folder; copy it again.")
        if not (index.parent / name).is_file():
            raise UserError(f"{index.parent / name} is missing: {index.name} names it; copy the model folder again.")
    return tuple(index.parent / name for name in names)


def weight_map(index: Path) -> dict[str, Any]:
    """Read which file of a sharded model has which tensor.

    Raises:
        UserError: The index has no such map.
    """
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise UserError(f"{index} has no weight_map of tensors to files; copy the file again.")
    return files


def _deeper_than(value: object, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}")
