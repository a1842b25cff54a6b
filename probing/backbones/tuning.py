"""Weights that change a model's transformer: a fine-tuned one as a folder or a single file, and a LoRA."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probing.backbones.folder_files import WeightFiles
from probing.backbones.log_lines import collected_warnings, dropped_log_lines
from probing.backbones.part_weights import FLOATS, StoredTensor, read_headers, refuse_keys
from probing.backbones.parts import Part
from probing.errors import UserError

if TYPE_CHECKING:
    from torch import nn

_LORA_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""Written by diffusers, and by peft."""
_PEFT_CONFIG = "adapter_config.json"
_PEFT_PREFIX = "base_model.model."
_ADAPTER = "lora"
"""Name under which the LoRA is added."""


@dataclass(frozen=True)
class Tuning:
    """Weights that change the transformer of a model.

    Attributes:
        transformer: Folder or safetensors file of a transformer that replaces the model's, such as a fine-tuned one.
        lora: Safetensors file of a LoRA that is added to the transformer, or the folder of one.
        lora_scale: Factor of the LoRA.
    """

    transformer: Path | None = None
    lora: Path | None = None
    lora_scale: float = 1.0

    @property
    def names(self) -> list[str]:
        """Names of what is changed, for the name of the model."""
        names = [_name(path) for path in (self.transformer, self.lora) if path is not None]
        return names if self.lora is None or self.lora_scale == 1 else [*names[:-1], f"{names[-1]}-{self.lora_scale:g}"]

    def check(self) -> None:
        """Check the headers of single files; no weights are read.

        Raises:
            UserError: One is missing, damaged, of another format or quantised, or the LoRA changes a text encoder.
        """
        if self.transformer is not None and not self.transformer.is_dir():
            check_single_file(self.transformer)
        if self.lora is not None:
            _check_lora(lora_file(self.lora))


UNCHANGED = Tuning()


def of_paths(transformer: str | Path | None, lora: str | Path | None = None, lora_scale: float = 1.0) -> Tuning:
    """Make a :class:`Tuning` of paths as people give them."""
    return Tuning(
        None if transformer is None else Path(transformer).expanduser(),
        None if lora is None else Path(lora).expanduser(),
        lora_scale,
    )


def plain_name(name: str, tuning: Tuning) -> str:
    """Return the name of a model without those of the weights that changed it.

    Raises:
        UserError: It was changed, and what changed it is not given.
    """
    plain, _, changed = name.partition("+")
    if changed and not tuning.names:
        raise UserError(
            f"It was made with a changed transformer of {plain}, {changed}; give that by --transformer or --lora."
        )
    return plain


def check_single_file(path: Path) -> None:
    """Check the header of a transformer's single file.

    Raises:
        UserError: It is missing, damaged, of another format, or quantised.
    """
    stored = _headers(path, "transformer")
    quantised = sorted(name for name, tensor in stored.items() if tensor.dtype not in FLOATS)
    if quantised:
        raise UserError(
            f"{path} holds {quantised[0]:.80} as {stored[quantised[0]].dtype}, and supported are {', '.join(FLOATS)}; "
            f"give weights that are not quantised, and --quantization to quantise them."
        )


def lora_file(path: Path) -> Path:
    """Return the file of a LoRA that was given as a file or a folder.

    Raises:
        UserError: There is none.
    """
    if path.is_dir():
        for name in _LORA_FILES:
            if (path / name).is_file():
                return path / name
        raise UserError(f"{path} holds no {' or '.join(_LORA_FILES)}; give the path of the LoRA's safetensors file.")
    return path


def load_single_file(part: Part, path: Path, config: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Load a transformer from one file, in diffusers' names or in those of the model's authors.

    Args:
        part: The transformer.
        path: The file.
        config: Configuration of the transformer.
        options: Of the loading, such as the type of the weights.

    Raises:
        UserError: It is the file of another model.
    """
    with tempfile.TemporaryDirectory() as folder, collected_warnings("diffusers.loaders.single_file_model") as warnings:
        (Path(folder) / part.config_name).write_text(json.dumps({**config, "_class_name": part.supported[0]}))
        try:
            model = part.model.from_single_file(str(path), config=folder, local_files_only=True, **options)
        except Exception as error:  # diffusers raises all kinds for the files of other models.
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise UserError(
                f"{path} cannot be loaded as a {part.supported[0]} of this model ({reason}); give a file of the same "
                f"model, or a folder of diffusers' format."
            ) from error
    unused = {word.strip(" '[]") for line in warnings for word in line.partition("\n")[2].split(",")}
    missing = {name for name, tensor in model.state_dict().items() if tensor.is_meta}
    refuse_keys(part, path, missing=missing, unexpected=unused)
    return model


def add_lora(pipeline: Any, path: Path, scale: float) -> None:
    """Add a LoRA to the transformer of a diffusers pipeline; its products stay beside the weights.

    Raises:
        UserError: It is of another model, or peft is not installed.
    """
    require_peft()
    file, transformer = lora_file(path), pipeline.transformer
    with (
        collected_warnings("diffusers.utils.peft_utils", "diffusers.loaders.peft") as warnings,
        dropped_log_lines("diffusers.loaders.lora_base", "No LoRA keys associated to"),
    ):
        try:
            if (file.parent / _PEFT_CONFIG).is_file():
                _add_of_peft(transformer, file)
            else:
                pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=_ADAPTER)
        except Exception as error:  # peft and diffusers raise all kinds for the files of other models.
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise UserError(f"The LoRA {file} does not fit {type(transformer).__name__} ({reason}).") from error
    if warnings:
        raise UserError(
            f"The LoRA {file} does not fit {type(transformer).__name__} ({' '.join(warnings[0].split())[:200]})."
        )
    transformer.set_adapters(_ADAPTER, scale)
    transformer.eval().requires_grad_(False)


def require_peft() -> Any:
    """Return peft.

    Raises:
        UserError: It is not installed.
    """
    try:
        import peft
    except ImportError:
        raise UserError("LoRA needs peft; install it with pip install 'dit-probing[adapt]'.") from None
    return peft


def _add_of_peft(transformer: nn.Module, file: Path) -> None:
    """Add an adapter that peft wrote, as trainers of reinforcement learning do."""
    from safetensors.torch import load_file

    peft = require_peft()
    config = peft.LoraConfig.from_pretrained(str(file.parent))
    peft.inject_adapter_in_model(config, transformer, adapter_name=_ADAPTER)
    state = {name.removeprefix(_PEFT_PREFIX): tensor for name, tensor in load_file(file).items()}
    expected = set(peft.get_peft_model_state_dict(transformer, adapter_name=_ADAPTER))
    if odd := sorted(expected ^ set(state)):
        raise ValueError(f"{odd[0]} and {len(odd) - 1} more are on one side only")
    peft.set_peft_model_state_dict(transformer, state, adapter_name=_ADAPTER)
    transformer._hf_peft_config_loaded = True  # type: ignore[assignment]


def _check_lora(path: Path) -> None:
    names = _headers(path, "LoRA")
    if not any("lora" in name.lower() for name in names):
        raise UserError(f"{path} is no LoRA (it holds {min(names):.80}); give a whole transformer by --transformer.")
    encoders = sorted(name for name in names if name.startswith(("text_encoder", "lora_te")))
    if encoders:
        raise UserError(
            f"The LoRA {path} changes a text encoder too ({encoders[0]:.80}), and only those of the transformer are "
            f"read; merge it into the pipeline by diffusers, and give the folder."
        )


def _headers(path: Path, what: str) -> dict[str, StoredTensor]:
    if not path.is_file():
        raise UserError(f"There is no {what} {path}; give its folder or its .safetensors file.")
    if path.suffix != ".safetensors":
        raise UserError(f"The {what} {path} is no .safetensors file; only these are loaded.")
    return read_headers(WeightFiles((path,), None))


def _name(path: Path) -> str:
    path = path.resolve()
    return path.stem if path.suffix == ".safetensors" else path.name
