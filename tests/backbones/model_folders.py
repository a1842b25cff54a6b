"""Edit copies of a model folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from probing.backbones import Backbone, load_backbone, part_digests, resolve
from probing.backbones.tuning import Tuning
from probing.errors import UserError
from tests.fakes.tiny_sd3 import T5_LENGTH

WEIGHTED = ["transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"]
CONFIGS = {"tokenizer": "tokenizer_config.json", "scheduler": "scheduler_config.json"}


def copied(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def config_path(folder: Path, part: str) -> Path:
    return folder / part / CONFIGS.get(part.split("_")[0], "config.json")


def weights_path(folder: Path, part: str) -> Path:
    name = "model" if part.startswith("text") else "diffusion_pytorch_model"
    return folder / part / f"{name}.safetensors"


def edit_config(folder: Path, part: str, **changes: Any) -> None:
    edit_json(config_path(folder, part), lambda config: config.update(changes))


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_weights(folder: Path, part: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    path = weights_path(folder, part)
    tensors = load_file(path)
    changed = change(tensors)
    save_file(changed if isinstance(changed, dict) else tensors, path, metadata={"format": "pt"})


def load(folder: Path, transformer: Path | None = None, **settings: Any) -> Backbone:
    spec = resolve(str(folder), Tuning(transformer))
    cpu = torch.device("cpu")
    return load_backbone(spec, device=cpu, compute_dtype=torch.float32, **{"t5_length": T5_LENGTH, **settings})


def refused(folder: Path, match: str, transformer: Path | None = None, **settings: Any) -> None:
    """Expect that a dry run's digests and loading both refuse a folder in one sentence."""
    with pytest.raises(UserError, match=match) as caught:
        load(folder, transformer, **settings)
    with pytest.raises(UserError, match=match):
        part_digests(
            resolve(str(folder), Tuning(transformer)), random_init=False, seed=0, use_t5=settings.get("use_t5", True)
        )
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600 and "licence" not in message
    assert ";" in message or ":" in message
