"""Load a backbone's weights strictly, or build its transformer anew for the random-initialised control."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import constants
from torch import nn

from probing.backbones.base import STAGES, Backbone, BackboneSpec, RandomInit, Stage
from probing.backbones.devices import pick_compute_dtype, pick_device
from probing.backbones.folder_files import weight_files
from probing.backbones.identity import check_folder, digests_of, local_folder, revision_of, scheduler_digest
from probing.backbones.part_weights import refuse_keys
from probing.backbones.parts import Kind, Part
from probing.backbones.placement import Placement, Quantization, WeightPlaces, quantization_config
from probing.backbones.random_pipeline import configured_folder, random_model, require_memory
from probing.backbones.registry import resolve
from probing.backbones.tuning import load_single_file
from probing.errors import UserError
from probing.seeds import check_seed

_STAGES: dict[Kind, Stage] = {"text_encoder": "text_encoders", "vae": "vae", "transformer": "transformer"}


def load_backbone(
    spec: BackboneSpec | str,
    *,
    device: torch.device | str = "auto",
    compute_dtype: torch.dtype | str = "auto",
    random_init: RandomInit = False,
    seed: int = 0,
    t5_length: int | None = None,
    use_t5: bool = True,
    guidance: float | None = None,
    time_dtype: Literal["float32", "model"] = "float32",
    quantization: Quantization | None = None,
    placement: Placement = "device",
    stages: Collection[Stage] = STAGES,
) -> Backbone:
    """Load VAE, text encoders and transformer, each through its class's ``from_pretrained``.

    Args:
        spec: Name or folder, or what :func:`probing.backbones.registry.resolve` returns.
        device: Where forwards will run; until then all parts rest in host memory. ``auto`` takes an accelerator if
            there is one.
        compute_dtype: Type of weights and forwards; ``auto`` takes that of an extraction.
        random_init: Build the transformer from its configuration with fresh weights (the modules' own
            initialisation), keeping the trained VAE and text encoders: the control of every curve. ``all`` builds all
            parts so, with stand-ins for tokenizers where there is no folder: for plans, memory and speed.
        seed: Seed of those fresh weights.
        t5_length: Positions of the text part whose length can be chosen (default: the spec's).
        use_t5: False leaves the optional text encoder out (SD3: T5; its positions are then zeros, as in diffusers).
        guidance: The guidance to embed, for a transformer that embeds one (default: the pipeline's).
        time_dtype: Type in which the timestep is embedded: float32, or the type of the weights, to which some stock
            transformers round it.
        quantization: Bits of the weights of the transformer's products; None leaves them as they are.
        placement: Where the weights of text encoders and transformer are while they compute.
        stages: What will be run; the weights of the rest are not loaded, and without ``transformer`` it is empty.

    Raises:
        UserError: An unknown name, device or type; the weights are gated, or neither here nor reachable; or a part
            lacks tensors, has unexpected ones, or is damaged.
    """
    spec = resolve(spec) if isinstance(spec, str) else spec
    device = pick_device(device) if isinstance(device, str) else device
    compute_dtype = pick_compute_dtype(compute_dtype, device) if isinstance(compute_dtype, str) else compute_dtype
    text_length = spec.t5_length if t5_length is None else t5_length
    spec.architecture.check_text(text_length, use_t5=use_t5)
    if guidance is not None and spec.architecture.guidance is None:
        raise UserError(f"{spec.name} embeds no guidance; leave --guidance out.")
    check_seed(seed)
    if random_init and spec.tuning.lora is not None:
        raise UserError("A LoRA is added to trained weights; leave --lora or --random-init out.")
    if random_init and quantization is not None:
        raise UserError("Random weights are not quantised; leave --quantization or --random-init out.")
    if random_init == "all":
        require_memory(spec, compute_dtype)
    with _quiet(), _folder_of(spec, random_init=random_init, use_t5=use_t5) as folder:
        try:
            folders = check_folder(spec, folder, random_init=random_init, use_t5=use_t5)
        except UserError as error:
            if random_init == "all" or Path(spec.source).is_dir():
                raise
            raise UserError(_ways_out(spec, error)) from error
        loaded: dict[str, Any] = {}
        places = WeightPlaces(placement, device)
        for part, path in folders.items():
            stage = _STAGES.get(part.kind)
            if stage is not None and stage not in stages:
                continue
            how = _options_of(part, compute_dtype, quantization, places)
            if random_init == "all" and part.has_weights:
                loaded[part.name] = random_model(part, path, compute_dtype, seed)
            elif random_init and part.kind == "transformer":
                continue
            elif path.is_file():
                config = spec.architecture.configs[part.name]
                loaded[part.name] = load_single_file(part, path, config, how)
            else:
                loaded[part.name] = _load_part(part, path, how)
        part = spec.family.transformer
        if "transformer" not in stages:
            # Pipelines ask its configuration for widths.
            with torch.device("meta"):
                loaded[part.name] = part.model.from_config(spec.architecture.configs[part.name])
        elif random_init and random_init != "all":
            loaded[part.name] = _random_transformer(spec, part, compute_dtype, seed)
        backbone = spec.family.build(spec, loaded, folder, device=device, text_length=text_length)
        backbone.parts = digests_of(spec, folder, random_init=random_init, seed=seed, use_t5=use_t5)
        backbone.scheduler_digest = scheduler_digest(folder)
    backbone.revision = revision_of(backbone.parts)
    if spec.tuning.lora is not None and "transformer" in stages:
        backbone.add_lora(spec.tuning.lora, spec.tuning.lora_scale)
    backbone.place(places)
    if guidance is not None:
        backbone.guidance = guidance
    backbone.embed_time(time_dtype)
    return backbone


@contextmanager
def _folder_of(spec: BackboneSpec, *, random_init: RandomInit, use_t5: bool) -> Iterator[Path]:
    """Yield the folder that is loaded from."""
    if random_init == "all":
        with configured_folder(spec) as folder:
            yield folder
    else:
        yield _download(spec, random_init=random_init, use_t5=use_t5)


def _download(spec: BackboneSpec, *, random_init: RandomInit, use_t5: bool) -> Path:
    """Return the folder of a model, after a download if it is one of the hub's and there is a connection."""
    if constants.HF_HUB_OFFLINE or Path(spec.source).is_dir():
        folder = local_folder(spec)
        if folder is None:
            raise UserError(_ways_out(spec, "the model is not in the local cache, and the hub is switched off"))
        return folder
    left_out = [part.name for part in spec.family.parts if part.is_optional and not use_t5]
    if random_init or spec.tuning.transformer is not None:
        left_out.append(spec.family.transformer.name)
    try:
        return spec.family.download(spec.source, left_out)
    except (OSError, ValueError) as error:
        raise UserError(_ways_out(spec, error)) from error


def _options_of(
    part: Part, compute_dtype: torch.dtype, quantization: Quantization | None, places: WeightPlaces
) -> dict[str, Any]:
    """Return the options with which the weights of a part are loaded."""
    options: dict[str, Any] = {"dtype" if part.of_transformers else "torch_dtype": compute_dtype}
    if part.kind in ("transformer", "text_encoder"):
        options |= places.loading_options()
    if part.kind == "transformer" and quantization is not None:
        options["quantization_config"] = quantization_config(quantization, compute_dtype)
    return options


def _load_part(part: Part, folder: Path, options: Mapping[str, Any]) -> Any:
    """Load one part; every tensor of it must come from its files.

    Raises:
        UserError: A tensor is missing or unexpected, or the library cannot read the part.
    """
    try:
        if not part.has_weights:
            return part.model.from_pretrained(folder, local_files_only=True)
        model, info = part.model.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            variant=weight_files(folder, part).variant,
            **options,
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


def _random_transformer(spec: BackboneSpec, part: Part, compute_dtype: torch.dtype, seed: int) -> nn.Module:
    needed, available = 4 * spec.architecture.parameters, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise UserError(
            f"A random-initialised transformer of {spec.name} needs {needed / 2**30:.1f} GiB, and this machine has "
            f"{available / 2**30:.1f} GiB of memory; take a smaller model."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = part.model.from_config(spec.architecture.configs[part.name])
    # Drawn in float32 and then cast, so that a control is the same in every dtype; diffusers warns of any cast.
    return nn.Module.to(transformer, compute_dtype)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the loaders' progress bars where there is no terminal."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

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
        f"--model testbed-xs, which is in the project (the loader's error: {reason})."
    )
