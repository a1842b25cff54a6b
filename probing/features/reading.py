"""Read blocks of items or of denoising trajectories batch by batch, and keep nothing.

Extraction writes a store; here every batch is handed to the caller, who takes what is wanted of the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from probing.backbones import Conditioning, SD3Backbone
from probing.backbones.sampling import denoise
from probing.errors import UserError
from probing.features.inputs import encode_images, encode_prompts
from probing.features.noise import add_noise, item_noise
from probing.features.plan import ExtractionPlan
from probing.features.trace import BlockTrace
from probing.preferences import PreferenceData

_AT_ONCE = 256
"""Items whose prompts and latents wait in host memory."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What one forward gave.

    Attributes:
        rows: Rows of the table that was read, one an item or prompt of the batch.
        sigma: Noise level.
        step: 0-indexed step of the trajectory; None for images.
        blocks: One entry a block, what ``reduce`` returned.
        parts: Where each text encoder's real tokens are, (row, token).
    """

    rows: pd.DataFrame
    sigma: float
    step: int | None
    blocks: list[Any]
    parts: dict[str, Bool[Tensor, "row token"]]


Reduce = Callable[[int, dict[str, Tensor | None]], Any]


def read_images(
    plan: ExtractionPlan, backbone: SD3Backbone, data: PreferenceData, items: pd.DataFrame, reduce: Reduce
) -> Iterator[Reading]:
    """Read pictures at every noise level of the plan, with the noise that an extraction with its settings draws.

    Args:
        plan: Settings and blocks.
        backbone: Loaded.
        data: Opens the pictures.
        items: ``item_id, prompt_id, prompt``; which are read, in this order.
        reduce: As for :meth:`probing.features.trace.BlockTrace.run`.

    Raises:
        UserError: A bad image, too little memory.
    """
    settings = plan.settings
    key = "prompt_id" if settings.pair_noise == "shared" else "item_id"
    for start in range(0, len(items), _run_length(settings.batch_size)):
        run = items.iloc[start : start + _run_length(settings.batch_size)]
        with backbone.on_device("text_encoders"):
            conditioning, row_of = encode_prompts(backbone, run["prompt"].tolist())
        with backbone.on_device("vae"):
            latents = torch.cat([one for one, _ in encode_images(backbone, data, run["item_id"].tolist(), settings)])
        noise = _noise(settings.seed, run[key].tolist(), latents.shape[1:])
        with backbone.on_device("transformer"):
            trace = BlockTrace(backbone.transformer, backbone.blocks_path, backbone.streams_of)
            for batch in _batches(len(run), settings.batch_size):
                told = conditioning.rows(row_of[batch]).to(backbone.device)
                for sigma in settings.sigmas:
                    noisy = add_noise(latents[batch], noise[batch], sigma)
                    blocks = _run(plan, backbone, trace, noisy, told, sigma, reduce)
                    yield Reading(run.iloc[batch], sigma, None, blocks, told.parts)


def read_trajectories(
    plan: ExtractionPlan,
    backbone: SD3Backbone,
    prompts: pd.DataFrame,
    reduce: Reduce,
    *,
    steps: int,
    guidance: float,
    read_at: Sequence[int],
) -> Iterator[Reading]:
    """Generate an image a prompt, and read the blocks at chosen steps on the rows that were told the prompt.

    The read forward is one of its own, of the same latents, without the empty prompt's rows: it costs one forward a
    read step beside the sampler's two, and a picture is generated exactly as by the pipeline.

    Args:
        plan: Settings and blocks; its noise levels are not used.
        backbone: Loaded.
        prompts: ``prompt_id, prompt``.
        reduce: As for :meth:`probing.features.trace.BlockTrace.run`.
        steps: Of the sampler.
        guidance: Of the sampler.
        read_at: 0-indexed steps.

    Raises:
        UserError: A step that the trajectory lacks, too little memory.
    """
    settings, architecture = plan.settings, plan.spec.architecture
    check_steps(steps, read_at)
    side = settings.resolution // architecture.vae_factor
    for start in range(0, len(prompts), _run_length(settings.batch_size)):
        run = prompts.iloc[start : start + _run_length(settings.batch_size)]
        with backbone.on_device("text_encoders"):
            conditioning, row_of = encode_prompts(backbone, run["prompt"].tolist())
            empty = backbone.encode_prompts([""]).to(backbone.device)
        noise = _noise(settings.seed, run["prompt_id"].tolist(), (architecture.latent_channels, side, side))
        with backbone.on_device("transformer"):
            trace = BlockTrace(backbone.transformer, backbone.blocks_path, backbone.streams_of)
            for batch in _batches(len(run), settings.batch_size):
                told = conditioning.rows(row_of[batch]).to(backbone.device)
                for state in denoise(backbone, noise[batch], told, empty, steps=steps, guidance=guidance):
                    if state.step in read_at:
                        blocks = _run(plan, backbone, trace, state.latents, told, state.sigma, reduce)
                        yield Reading(run.iloc[batch], state.sigma, state.step, blocks, told.parts)
                    if state.step >= max(read_at):
                        break


def check_steps(steps: int, read_at: Sequence[int]) -> None:
    """Refuse steps that a trajectory lacks.

    Raises:
        UserError: With the steps that there are.
    """
    wrong = [step for step in read_at if not 0 <= step < steps]
    if wrong or not read_at:
        asked = ", ".join(map(str, read_at)) or "none"
        raise UserError(f"A trajectory of {steps} steps can be read at steps 0 … {steps - 1}, got {asked}.")


def _run(
    plan: ExtractionPlan,
    backbone: SD3Backbone,
    trace: BlockTrace,
    latents: Tensor,
    conditioning: Conditioning,
    sigma: float,
    reduce: Reduce,
) -> list[Any]:
    try:
        return trace.run(backbone.transformer_inputs(latents, conditioning, sigma), plan.blocks, reduce)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"{backbone.device} ran out of memory with --batch-size {plan.settings.batch_size}; "
            f"try --batch-size {max(1, plan.settings.batch_size // 2)}."
        ) from error


def _noise(seed: int, keys: Sequence[str], shape: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.stack([item_noise(seed, key, tuple(shape)) for key in keys]))


def _run_length(batch_size: int) -> int:
    return max(1, _AT_ONCE // batch_size) * batch_size


def _batches(rows: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
