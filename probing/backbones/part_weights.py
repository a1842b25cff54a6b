"""Compare a part's configuration with the headers of its weight files, before any weight is read."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from probing.backbones.folder_files import WeightFiles, weight_map
from probing.backbones.parts import Part
from probing.errors import UserError

if TYPE_CHECKING:
    from torch import nn

_LARGEST_HEADER = 16 * 2**20
FLOATS = ("F16", "BF16", "F32", "F64")
"""Types of weights, as headers name them."""
_COMPILED = "_orig_mod."
_SOUND: set[tuple[Part, Path, tuple[tuple[str, int, int, int, int], ...]]] = set()
"""Parts that this process has checked: a plan and the load after it check the same files."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor, as the header of a safetensors file describes it."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


def read_headers(weights: WeightFiles) -> dict[str, StoredTensor]:
    """Read names, types and shapes of a part's tensors; the weights themselves are not read.

    Raises:
        UserError: A file is damaged, or the list of shards does not fit the shards.
    """
    stored: dict[str, StoredTensor] = {}
    for path in weights.files:
        header = _read_header(path)
        twice = sorted(set(header) & set(stored))
        if twice:
            raise UserError(f"{path} holds {twice[0]!r:.80}, as another shard does; copy the model folder again.")
        if weights.index is not None:
            named = {key for key, name in weight_map(weights.index).items() if name == path.name}
            if named != set(header):
                first = min(named ^ set(header))
                raise UserError(
                    f"{weights.index} does not fit {path.name}: {first!r:.80} is only in one of them; copy the model "
                    f"folder again."
                )
        stored |= header
    return stored


def check_block_count(folder: Path, part: Part, config: Mapping[str, Any], stored: Mapping[str, StoredTensor]) -> None:
    """Compare the configuration's number of blocks with the weights' (cheap, before a model is made from it).

    Raises:
        UserError: The two differ.
    """
    for prefix, key in part.repeated.items():
        pattern = re.compile(rf"(?:{re.escape(_COMPILED)})?{re.escape(prefix)}\.(\d{{1,9}})\.")
        count = len({match[1] for name in map(part.renamed, stored) if (match := pattern.match(name))})
        if config[key] != count:
            raise UserError(
                f"{folder / part.config_name} has {key} = {config[key]}, and its weights hold {count} blocks; copy "
                f"the model folder again."
            )


def check_weights(
    folder: Path, part: Part, config: Mapping[str, Any], weights: WeightFiles, *, make_model: bool = True
) -> None:
    """Compare every tensor that the configuration implies with the headers of the weight files.

    The model is made on the meta device, which holds no weights, and runs there once.

    Args:
        folder: The part's folder.
        part: The part.
        config: Its configuration.
        weights: Its files.
        make_model: False checks the headers and the number of blocks only, and imports no library of models.

    Raises:
        UserError: A tensor is missing, unexpected, or of another shape or type; the part and the first are named.
    """
    unchanged = part, folder, _stamps(folder / part.config_name, weights)
    if unchanged in _SOUND:
        return
    stored = read_headers(weights)
    if any(name.startswith(_COMPILED) for name in stored):
        raise UserError(
            f"{weights.files[0]} was saved from a compiled model (its keys begin with {_COMPILED}): save "
            f"model.{_COMPILED.rstrip('.')} by save_pretrained instead."
        )
    check_block_count(folder, part, config, stored)
    if not make_model:
        return
    stored = {part.renamed(name): tensor for name, tensor in stored.items()}
    model = meta_model(folder, part)
    state = model.state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    shapes = {name: tensor.shape for name, tensor in _renamed(model, stored, sharded=weights.index is not None).items()}
    missing, unexpected = set(expected) - set(shapes), set(shapes) - set(expected)
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    for target, source in tied.items():
        if target in shapes or source in shapes:
            missing -= {target, source}
    ignored = [*(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()), r"(^|\.)position_ids$"]
    unexpected = {name for name in unexpected if not any(re.search(pattern, name) for pattern in ignored)}
    refuse_keys(part, folder, missing=missing, unexpected=unexpected)
    for name in sorted(set(expected) & set(shapes)):
        if expected[name] != shapes[name]:
            raise UserError(
                f"The {part.name} in {folder} cannot be loaded: {name} has the shape {list(shapes[name])} in the "
                f"weights and {list(expected[name])} by the configuration; copy the model folder again."
            )
    for name in sorted(set(expected) & set(stored)):
        if state[name].is_floating_point() and stored[name].dtype not in FLOATS:
            raise UserError(
                f"The {part.name} in {folder} cannot be loaded: {name} has the type {stored[name].dtype}, and "
                f"supported are {', '.join(FLOATS)}; give weights that are not quantised."
            )
    _SOUND.add(unchanged)


def _stamps(config: Path, weights: WeightFiles) -> tuple[tuple[str, int, int, int, int], ...]:
    """Return what changes when a file of the part does."""
    paths = [config, *weights.files, *([] if weights.index is None else [weights.index])]
    status = [(str(path), os.stat(path)) for path in paths if path.exists()]
    return tuple((path, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for path, s in status)


def refuse_keys(part: Part, folder: Path, *, missing: set[str], unexpected: set[str]) -> None:
    """Refuse weights that lack tensors or have unexpected ones.

    Raises:
        UserError: There is a missing or an unexpected tensor; the first few are named.
    """
    for what, keys in (("lack", missing), ("have unexpected", unexpected)):
        if keys:
            first = ", ".join(f"{key:.80}" for key in sorted(keys)[:3])
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise UserError(
                f"The {part.name} in {folder} cannot be loaded: its weights {what} {first}{more}; copy the model "
                f"folder again, or save it again from a complete model."
            )


def meta_model(folder: Path, part: Part) -> nn.Module:
    """Make a part's model from its configuration on the meta device and run it once there; no weights are held.

    Raises:
        UserError: The configuration describes no model that runs.
    """
    import torch

    try:
        with torch.device("meta"), torch.inference_mode():
            return part.empty_model(folder)
    except Exception as error:  # The libraries raise all kinds for values that make no model.
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"{folder / part.config_name} describes no model that runs ({reason}); copy the file again."
        ) from error


def _renamed(model: nn.Module, stored: Mapping[str, StoredTensor], *, sharded: bool) -> dict[str, Any]:
    """Rename tensors of old attention blocks as diffusers does; it does so for single files only."""
    if sharded or not hasattr(model, "_fix_state_dict_keys_on_load"):
        return dict(stored)
    renamed: dict[str, Any] = dict(stored)
    fix: Any = model._fix_state_dict_keys_on_load
    fix(renamed)
    return renamed


def _read_header(path: Path) -> dict[str, StoredTensor]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
        if start == b"version ":
            raise UserError(f"{path} is a Git LFS pointer and no weights; run `git lfs pull` in its folder.")
        length = int.from_bytes(start, "little")
        if size < 10 or length > min(size - 8, _LARGEST_HEADER):
            raise UserError(
                f"{path} is damaged or cut short ({size} bytes, and its header claims {length}); copy the file again."
            )
        with safe_open(path, framework="numpy") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            header = {key: StoredTensor(str(s.get_dtype()), tuple(s.get_shape())) for key, s in slices.items()}
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); repair the file or its permissions.") from error
    except (SafetensorError, ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path} is damaged or cut short ({reason}); copy the file again.") from error
    if not header:
        raise UserError(f"{path} holds no tensors; copy the file again.")
    return header
