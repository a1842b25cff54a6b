"""Load a backbone's weights strictly, or build its transformer anew for the random-initialised control."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import constants
from torch import nn
from transformers.utils import logging as transformers_logging

from probing.backbones import stock
from probing.backbones.folder_files import weight_files
from probing.backbones.identity import check_folder, digests_of, local_folder, revision_of, scheduler_digest
from probing.backbones.part_weights import refuse_keys
from probing.backbones.parts import Part
from probing.backbones.registry import BackboneSpec
from probing.backbones.sd3 import SD3Backbone
from probing.errors import UserError
from probing.seeds import check_seed

COMPUTE_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` takes an accelerator where there is one.

    Raises:
        UserError: The device asked for is not on this machine.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"Device {name!r} is not on this machine; use --device auto or cpu.") from None
    return device


def pick_compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """``auto`` is bfloat16 on an accelerator and float32 on a CPU.

    Raises:
        UserError: float16 on a CPU, which is many times slower than float32 there.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name == "float16" and device.type == "cpu":
        raise UserError("float16 on a CPU is slower than float32 and less exact; use --compute-dtype float32.")
    return COMPUTE_DTYPES[name]


def load_backbone(
    spec: BackboneSpec,
    *,
    device: torch.device,
    compute_dtype: torch.dtype,
    random_init: bool = False,
    seed: int = 0,
    t5_length: int | None = None,
    use_t5: bool = True,
) -> SD3Backbone:
    """Load VAE, text encoders and transformer, each through its class's ``from_pretrained``.

    Args:
        spec: What :func:`probing.backbones.registry.resolve` found.
        device: Where forwards will run; until then all parts rest in host memory.
        compute_dtype: Of weights and forwards.
        random_init: Build the transformer from its configuration with fresh weights (the modules' own
            initialisation), keeping the trained VAE and text encoders: the control of every curve.
        seed: Of those fresh weights.
        t5_length: Positions of the T5 part (default: the spec's).
        use_t5: False leaves the third text encoder out; its positions are then zeros, as in diffusers.

    Raises:
        UserError: The weights are gated, or neither here nor reachable; or a part lacks tensors, has unexpected ones,
            or is damaged.
    """
    t5_length = spec.t5_length if t5_length is None else t5_length
    if spec.architecture.has_t5 and use_t5 and t5_length < 1:
        raise UserError(f"The T5 encoder needs at least 1 position, got --t5-length {t5_length}; use --no-t5 instead.")
    check_seed(seed)
    with _quiet():
        folder = _download(spec, random_init=random_init, use_t5=use_t5)
        try:
            folders = check_folder(spec, folder, random_init=random_init, use_t5=use_t5)
        except UserError as error:
            if Path(spec.source).is_dir():
                raise
            raise UserError(_ways_out(spec, error)) from error
        loaded: dict[str, Any] = {"text_encoder_3": None, "tokenizer_3": None}
        for part, path in folders.items():
            if not (random_init and part.kind == "transformer"):
                loaded[part.name] = _load_part(part, path, compute_dtype)
        if random_init:
            loaded["transformer"] = _random_transformer(spec, compute_dtype, seed)
        pipeline = stock.StableDiffusion3Pipeline(**loaded)
    pipeline.set_progress_bar_config(disable=True)
    backbone = SD3Backbone(spec, pipeline, device=device, t5_length=t5_length)
    _check_tokenizers(backbone, folder)
    backbone.parts = digests_of(spec, folder, random_init=random_init, seed=seed, use_t5=use_t5)
    backbone.revision = revision_of(backbone.parts)
    backbone.scheduler_digest = scheduler_digest(folder)
    return backbone


def _download(spec: BackboneSpec, *, random_init: bool, use_t5: bool) -> Path:
    """Return the folder of a model, after a download if it is one of the hub's and there is a connection."""
    if constants.HF_HUB_OFFLINE or Path(spec.source).is_dir():
        folder = local_folder(spec)
        if folder is None:
            raise UserError(_ways_out(spec, "the model is not in the local cache, and the hub is switched off"))
        return folder
    left_out = {} if use_t5 else {"text_encoder_3": None, "tokenizer_3": None}
    if random_init:
        left_out["transformer"] = None
    try:
        return Path(stock.StableDiffusion3Pipeline.download(spec.source, use_safetensors=True, **left_out))
    except (OSError, ValueError) as error:
        raise UserError(_ways_out(spec, error)) from error


_CLASSES = {
    "transformer": stock.SD3Transformer2DModel,
    "vae": stock.AutoencoderKL,
    "clip": stock.CLIPTextModelWithProjection,
    "t5": stock.T5EncoderModel,
    "scheduler": stock.FlowMatchEulerDiscreteScheduler,
}


def _load_part(part: Part, folder: Path, compute_dtype: torch.dtype) -> Any:
    """Load one part; every tensor of it must come from its files.

    Raises:
        UserError: A tensor is missing or unexpected, or the library cannot read the part.
    """
    info: Mapping[str, Any] = {}
    try:
        if part.kind == "tokenizer":
            cls = stock.T5Tokenizer if part.is_t5 else stock.CLIPTokenizer
            return cls.from_pretrained(folder, local_files_only=True)
        if part.kind == "scheduler":
            return _CLASSES[part.kind].from_pretrained(folder, local_files_only=True)
        dtype_name = "dtype" if part.kind in ("clip", "t5") else "torch_dtype"
        model, info = _CLASSES[part.kind].from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **{"variant": weight_files(folder, part).variant, dtype_name: compute_dtype},
        )
    except UserError:
        raise
    except Exception as error:  # The libraries raise all kinds for files that were edited or damaged.
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"The {part.name} in {folder} cannot be loaded ({reason}); copy the model folder again."
        ) from error
    refuse_keys(
        part, folder, missing=set(info.get("missing_keys", ())), unexpected=set(info.get("unexpected_keys", ()))
    )
    return model


def _random_transformer(spec: BackboneSpec, compute_dtype: torch.dtype, seed: int) -> nn.Module:
    needed, there = 4 * spec.architecture.parameters, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        raise UserError(
            f"A random-initialised transformer of {spec.name} needs {needed / 2**30:.1f} GiB, and this machine has "
            f"{there / 2**30:.1f} GiB of memory; take a smaller model."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = stock.SD3Transformer2DModel.from_config(spec.architecture.transformer)
    # Drawn in float32 and then cast, so that a control is the same in every dtype; diffusers warns of any cast.
    return nn.Module.to(transformer, compute_dtype)


def _check_tokenizers(backbone: SD3Backbone, folder: Path) -> None:
    """Tokenize one prompt with each tokenizer as the pipeline does.

    Raises:
        UserError: It fails, or gives tokens that the text encoder has no row for.
    """
    pipeline = backbone.pipeline
    lengths = (pipeline.tokenizer_max_length, pipeline.tokenizer_max_length, backbone.t5_length)
    for number, length in zip(("", "_2", "_3"), lengths, strict=True):
        tokenizer, encoder = getattr(pipeline, f"tokenizer{number}"), getattr(pipeline, f"text_encoder{number}")
        if tokenizer is None:
            continue
        path = folder / f"tokenizer{number}"
        try:
            texts = ["a", ""]
            ids = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            tokenizer.batch_decode(tokenizer(texts, padding="longest", return_tensors="pt").input_ids)
            shape, largest = tuple(ids["input_ids"].shape), max(tokenizer.get_vocab().values(), default=0)
        except Exception as error:  # As for the other parts.
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise UserError(f"The tokenizer in {path} does not work ({reason}); copy the folder again.") from error
        if shape != (2, length) or largest >= encoder.config.vocab_size:
            raise UserError(
                f"The tokenizer in {path} does not fit its text encoder (tokens up to {largest} for "
                f"{encoder.config.vocab_size} rows); copy both folders again."
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the loaders' bars where nobody sees them; a download still shows its own on a terminal."""
    if sys.stderr.isatty():
        yield
        return
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in (diffusers_logging, transformers_logging):
            library.enable_progress_bar()


def _ways_out(spec: BackboneSpec, error: Exception | str) -> str:
    reason = " ".join(str(error).split())[:300].rstrip(".")
    return (
        f"The weights of {spec.name} ({spec.source}) cannot be loaded: accept the licence on the model's page and log "
        f"in with `hf auth login`, or give --model the path of a downloaded pipeline folder, or try "
        f"--model testbed-xs, which is in the project (the loader said: {reason})."
    )
