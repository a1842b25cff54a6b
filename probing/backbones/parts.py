"""The parts of a Stable Diffusion 3 pipeline folder, and the classes that are supported for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probing.errors import UserError


@dataclass(frozen=True)
class Part:
    """One entry of ``model_index.json``.

    Attributes:
        name: Its name in the index, and that of its folder.
        kind: ``transformer``, ``vae``, ``clip``, ``t5``, ``tokenizer`` or ``scheduler``.
        classes: Names of the classes that are supported; the first is the class that is loaded.
    """

    name: str
    kind: str
    classes: tuple[str, ...]

    @property
    def has_weights(self) -> bool:
        return self.kind not in ("tokenizer", "scheduler")

    @property
    def config_name(self) -> str:
        return {"tokenizer": "tokenizer_config.json", "scheduler": "scheduler_config.json"}.get(
            self.kind, "config.json"
        )

    @property
    def weights_stem(self) -> str:
        return "model" if self.kind in ("clip", "t5") else "diffusion_pytorch_model"

    @property
    def is_t5(self) -> bool:
        return self.name in T5_PARTS


_CLIP, _CLIP_TOKENIZER = ("CLIPTextModelWithProjection",), ("CLIPTokenizer", "CLIPTokenizerFast")
PARTS = (
    Part("scheduler", "scheduler", ("FlowMatchEulerDiscreteScheduler",)),
    Part("tokenizer", "tokenizer", _CLIP_TOKENIZER),
    Part("tokenizer_2", "tokenizer", _CLIP_TOKENIZER),
    Part("tokenizer_3", "tokenizer", ("T5Tokenizer", "T5TokenizerFast")),
    Part("transformer", "transformer", ("SD3Transformer2DModel",)),
    Part("vae", "vae", ("AutoencoderKL",)),
    Part("text_encoder", "clip", _CLIP),
    Part("text_encoder_2", "clip", _CLIP),
    Part("text_encoder_3", "t5", ("T5EncoderModel",)),
)
T5_PARTS = ("text_encoder_3", "tokenizer_3")
SUPPORTED_PIPELINES = ("StableDiffusion3Pipeline",)


def check_index(path: Path, index: dict[str, Any]) -> None:
    """Compare a pipeline's index with the classes that are supported.

    Args:
        path: The index, for the message.
        index: Its content.

    Raises:
        UserError: Another pipeline, a part that is not there, or one of another class.
    """
    family = index.get("_class_name")
    if family not in SUPPORTED_PIPELINES:
        raise UserError(f"{path.parent} holds a {family!s:.80}, and supported are: {', '.join(SUPPORTED_PIPELINES)}.")
    for part in PARTS:
        entry = index.get(part.name)
        if entry in (None, [None, None]) and part.is_t5:
            continue
        if entry in (None, [None, None]):
            raise UserError(f"{path} has no {part.name}, which this suite needs; give a complete pipeline folder.")
        if not (isinstance(entry, list) and len(entry) == 2 and entry[1] in part.classes):
            found = entry[-1] if isinstance(entry, list) and entry else entry
            raise UserError(
                f"{path} gives {found!r:.80} as {part.name}, and supported is: {part.classes[0]}; "
                f"give a pipeline with that class."
            )
    if has_t5(index) != (index.get("tokenizer_3") not in (None, [None, None])):
        raise UserError(f"{path} has only one of {' and '.join(T5_PARTS)}; give both, or null for both.")


def has_t5(index: dict[str, Any]) -> bool:
    return index.get("text_encoder_3") not in (None, [None, None])
