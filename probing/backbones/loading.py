"""Load a backbone's weights, or build its transformer anew for the random-initialised control."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import constants
from torch import nn
from transformers.utils import logging as transformers_logging

from probing.backbones.registry import BackboneSpec
from probing.backbones.sd3 import SD3Backbone
from probing.errors import UserError

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
    """Load VAE, text encoders and transformer through ``from_pretrained``.

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
        UserError: The weights are gated, or neither here nor reachable.
    """
    t5_length = spec.t5_length if t5_length is None else t5_length
    if spec.architecture.has_t5 and use_t5 and t5_length < 1:
        raise UserError(f"The T5 encoder needs at least 1 position, got --t5-length {t5_length}; use --no-t5 instead.")
    replaced: dict[str, Any] = {}
    if random_init:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            transformer = SD3Transformer2DModel.from_config(spec.architecture.transformer)
        # Drawn in float32 and then cast, so that a control is the same in every dtype; diffusers warns of any cast.
        replaced["transformer"] = nn.Module.to(transformer, compute_dtype)
    if not use_t5:
        replaced |= {"text_encoder_3": None, "tokenizer_3": None}
    try:
        with _quiet():
            if spec.transformer is not None and not random_init:
                replaced["transformer"] = SD3Transformer2DModel.from_pretrained(
                    spec.transformer, torch_dtype=compute_dtype, local_files_only=True
                )
            pipeline = StableDiffusion3Pipeline.from_pretrained(
                spec.source, dtype=compute_dtype, local_files_only=constants.HF_HUB_OFFLINE, **replaced
            )
    except (OSError, ValueError) as error:
        raise UserError(_ways_out(spec, error)) from error
    pipeline.set_progress_bar_config(disable=True)
    return SD3Backbone(spec, pipeline, device=device, t5_length=t5_length)


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


def _ways_out(spec: BackboneSpec, error: Exception) -> str:
    reason = " ".join(str(error).split())[:160]
    return (
        f"The weights of {spec.name} ({spec.source}) cannot be loaded: accept the licence on the model's page and log "
        f"in with `hf auth login`, or give --model the path of a downloaded pipeline folder, or try "
        f"--model testbed-xs, which is in the project (the loader said: {reason})."
    )
