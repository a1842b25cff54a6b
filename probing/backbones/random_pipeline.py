"""Whole pipelines of random weights: full size where no weights can be had, for plans, memory and speed."""

from __future__ import annotations

import importlib.resources
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from probing.backbones.base import BackboneSpec
from probing.backbones.parts import Part
from probing.errors import UserError
from probing.seeds import check_seed

STAND_IN = "stand-in"
"""Mark in the configuration of a tokenizer that was made here, and in the name of what it tokenizes."""


@contextmanager
def configured_folder(spec: BackboneSpec) -> Iterator[Path]:
    """Yield a folder with the configuration of every part: the model's own, or one that is written for the time being.

    A written folder has stand-ins for tokenizers: small, of the real class, and marked.

    Raises:
        UserError: The model is neither a folder nor one whose configurations are in the package.
    """
    if Path(spec.source).is_dir():
        yield Path(spec.source)
        return
    if spec.packaged is None:
        raise UserError(f"The configurations of {spec.name} are not in the package; give a folder of it.")
    with tempfile.TemporaryDirectory(prefix="random-pipeline-") as name:
        folder = Path(name)
        _write(spec, folder)
        yield folder


def random_model(part: Part, folder: Path, dtype: torch.dtype, seed: int) -> nn.Module:
    """Make a part from its configuration, with its class's own initialisation, drawn in ``dtype``."""
    usual = torch.get_default_dtype()
    try:
        torch.set_default_dtype(dtype)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(check_seed(seed))
            model: nn.Module = part.new_model(folder)
    finally:
        torch.set_default_dtype(usual)
    # A few modules make weights of a type of their own.
    return nn.Module.to(model, dtype)


def require_memory(spec: BackboneSpec, dtype: torch.dtype) -> None:
    """Refuse a pipeline that this machine's memory cannot hold.

    Raises:
        UserError: With the memory that it needs.
    """
    architecture = spec.architecture
    needed = dtype.itemsize * (architecture.parameters + architecture.text_parameters)
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise UserError(
            f"Random weights for all of {spec.name} need {needed / 2**30:.1f} GiB, and this machine has "
            f"{available / 2**30:.1f} GiB of memory; take a smaller model, or --compute-dtype bfloat16."
        )


def _write(spec: BackboneSpec, folder: Path) -> None:
    configs = importlib.resources.files("probing.backbones") / "configs"
    described = json.loads((configs / f"{spec.packaged}.json").read_text())
    encoders = {
        name: json.loads((configs / "encoders" / f"{encoder}.json").read_text())
        for name, encoder in described["encoders"].items()
    }
    contents = {**encoders, "transformer": described["transformer"], "vae": described["vae"]}
    contents["scheduler"] = described["scheduler"]
    index: dict[str, Any] = {"_class_name": spec.family.pipeline}
    for part in spec.family.parts:
        path = folder / part.name
        path.mkdir()
        library = "transformers" if part.of_transformers or part.kind == "tokenizer" else "diffusers"
        index[part.name] = [library, part.supported[0]]
        if part.kind == "tokenizer":
            _write_tokenizer(part, path, int(described.get("clip_length", 77)))
            continue
        content = {**contents[part.name], "_class_name": part.supported[0]}
        (path / part.config_name).write_text(json.dumps(content))
    (folder / "model_index.json").write_text(json.dumps(index))


def _write_tokenizer(part: Part, folder: Path, clip_length: int) -> None:
    makers: dict[str, Callable[[Part], Any]] = {
        "CLIPTokenizer": lambda part: _clip(part, clip_length),
        "T5Tokenizer": _t5,
        "Qwen2Tokenizer": _qwen2,
        "PreTrainedTokenizerFast": _fast,
    }
    makers[part.supported[0]](part).save_pretrained(folder)
    path = folder / part.config_name
    path.write_text(json.dumps({**json.loads(path.read_text()), "probing": STAND_IN}))


def _clip(part: Part, length: int) -> Any:
    """One token a letter."""
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return part.model(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=length)


def _t5(part: Part) -> Any:
    """One token a letter."""
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    return part.model(vocab=special + [(letter, -3.0) for letter in letters], extra_ids=0)


def _fast(part: Part) -> Any:
    """One token a byte, with a short form of the chat template, without its long system message."""
    from tokenizers import Tokenizer
    from tokenizers.decoders import ByteLevel as Decoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = ["<pad>", "<s>", "</s>", "[INST]", "[/INST]", *sorted(ByteLevel.alphabet())]
    made = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, []))
    made.pre_tokenizer, made.decoder = ByteLevel(add_prefix_space=False), Decoder()
    marks = dict(zip(("pad_token", "bos_token", "eos_token"), tokens, strict=False))
    tokenizer = part.model(tokenizer_object=made, additional_special_tokens=tokens[3:5], padding_side="left", **marks)
    tokenizer.chat_template = (
        "<s>{% for message in messages if message.role == 'user' %}[INST]{% for piece in message.content %}"
        "{{ piece.text }}{% endfor %}[/INST]{% endfor %}"
    )
    return tokenizer


def _qwen2(part: Part) -> Any:
    """One token a byte, with the marks and a short form of the chat template."""
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet())]
    tokenizer = part.model(
        vocab={token: i for i, token in enumerate(tokens)}, merges=[], additional_special_tokens=tokens[1:3]
    )
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "<|im_start|>assistant\n"
    )
    return tokenizer
