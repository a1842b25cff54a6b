"""The one loop of forwards: encode a run of items, add noise, read blocks batch by batch, and keep nothing.

Extraction, block similarity and token maps all read through it; the caller keeps what it needs of each batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probing.backbones import Backbone, Conditioning, Streams
from probing.backbones.sampling import denoise
from probing.errors import UserError
from probing.features.inputs import encode_images, encode_prompts
from probing.features.kept_inputs import KeptInputs
from probing.features.memory import FittingBatches, sentence_for_full_memory
from probing.features.noise import add_noise, item_noise
from probing.features.plan import ExtractionPlan
from probing.features.settings import ExtractionSettings
from probing.features.trace import BlockTrace
from probing.preferences import PreferenceData

_RUN_LENGTH = 256
"""Items whose prompts and latents wait in host memory."""

Masks = dict[str, Bool[Tensor, "row token"]]
"""For each part of the text, which positions of the text stream hold real tokens."""
Reduce = Callable[[int, Streams, Masks], Any]
"""Takes a block, its streams and the masks of the text parts; what it returns is kept."""


@dataclass(frozen=True, eq=False)
class Reading:
    """The result of one forward.

    Attributes:
        rows: Rows of the table that was read, one an item or prompt of the batch.
        batch: Positions of these rows in their run.
        sigma: Noise level.
        step: 0-indexed step of the trajectory; None for images.
        blocks: One entry a block, what ``reduce`` returned.
        parts: For each part of the text, which positions hold real tokens.
    """

    rows: pd.DataFrame
    batch: slice
    sigma: float
    step: int | None
    blocks: list[Any]
    parts: Masks


@dataclass(frozen=True, eq=False)
class EncodedItems:
    """A run of items in host memory, ready for forwards.

    Attributes:
        items: Their rows.
        conditioning: Their different prompts, encoded.
        row_of: Row of ``conditioning`` of each item.
        latents: Clean latents x0.
        noise: ε of each item.
        digests: Digest of each picture.
    """

    items: pd.DataFrame
    conditioning: Conditioning
    row_of: Int[Tensor, " item"]
    latents: Float[Tensor, "item channel row column"]
    noise: Float[Tensor, "item channel row column"]
    digests: list[bytes]


def encode_items(
    backbone: Backbone,
    data: PreferenceData,
    items: pd.DataFrame,
    settings: ExtractionSettings,
    kept: KeptInputs | None = None,
) -> EncodedItems:
    """Encode prompts and pictures of a run, or read them where they are kept, and draw its noise.

    Args:
        backbone: Loaded.
        data: Opens the pictures.
        items: ``item_id, prompt_id, prompt``.
        settings: Resolution, preparation of images, seed and rule of the noise.
        kept: What earlier extractions encoded; None keeps nothing.

    Raises:
        UserError: A bad image.
    """
    conditioning, row_of = encode_prompts(backbone, items["prompt"].tolist(), kept)
    latents, digests = encode_images(backbone, data, items["item_id"].tolist(), settings, kept)
    keys = items["prompt_id" if settings.pair_noise == "shared" else "item_id"].tolist()
    return EncodedItems(
        items=items,
        conditioning=conditioning,
        row_of=row_of,
        latents=latents,
        noise=_noise(settings.seed, keys, latents.shape[1:]),
        digests=digests,
    )


def read_encoded(
    plan: ExtractionPlan,
    backbone: Backbone,
    encoded: EncodedItems,
    sigmas: Sequence[float],
    reduce: Reduce,
    fitting: FittingBatches | None = None,
) -> Iterator[Reading]:
    """Read encoded items batch by batch, each batch at every noise level.

    Batches are cut at fixed places of the run, so the same run gives the same bytes whenever it is read. One that does
    not fit into the device's memory is read in halves, which changes features by rounding.

    Args:
        plan: Settings and blocks.
        backbone: Loaded.
        encoded: The run.
        sigmas: Noise levels.
        reduce: Applied to each block's streams on the device.
        fitting: What earlier runs learned of the memory.
    """
    fitting = fitting or FittingBatches()
    with backbone.on_device("transformer"):
        trace = BlockTrace(backbone)

        def read(rows: slice, sigma: float) -> Reading:
            conditioning = encoded.conditioning.rows(encoded.row_of[rows]).to(backbone.device)
            noisy = add_noise(encoded.latents[rows], encoded.noise[rows], sigma)
            blocks = _run(trace, backbone, noisy, conditioning, sigma, plan.blocks, reduce)
            return Reading(encoded.items.iloc[rows], rows, sigma, None, blocks, conditioning.parts)

        for batch in _batches(len(encoded.items), plan.settings.batch_size):
            for sigma in sigmas:
                for _, reading in fitting.run(batch, partial(read, sigma=sigma)):
                    yield reading


def read_images(
    plan: ExtractionPlan,
    backbone: Backbone,
    data: PreferenceData,
    items: pd.DataFrame,
    reduce: Reduce,
    kept: KeptInputs | None = None,
) -> Iterator[Reading]:
    """Read pictures at every noise level of the plan, with the noise that an extraction with its settings draws.

    Args:
        plan: Settings and blocks.
        backbone: Loaded.
        data: Opens the pictures.
        items: ``item_id, prompt_id, prompt``; read in this order.
        reduce: Applied to each block's streams on the device.
        kept: What earlier readings encoded; None keeps nothing.

    Raises:
        UserError: A bad image, too little memory.
    """
    fitting = FittingBatches()
    with sentence_for_full_memory(backbone, plan.settings.resolution):
        for run in runs_of(items, plan.settings.batch_size):
            encoded = encode_items(backbone, data, run, plan.settings, kept)
            yield from read_encoded(plan, backbone, encoded, plan.settings.sigmas, reduce, fitting)


def read_trajectories(
    plan: ExtractionPlan,
    backbone: Backbone,
    prompts: pd.DataFrame,
    reduce: Reduce,
    *,
    steps: int,
    guidance: float,
    read_at: Sequence[int],
) -> Iterator[Reading]:
    """Generate an image a prompt, and read the blocks at chosen steps on the rows with the prompt.

    Each read step takes a forward of its own, of the same latents, without the rows of the empty prompt: one forward
    beside the sampler's two. The image is generated exactly as by the pipeline.

    Args:
        plan: Settings and blocks; its noise levels are not used.
        backbone: Loaded.
        prompts: ``prompt_id, prompt``.
        reduce: Applied to each block's streams on the device.
        steps: Steps of the sampler.
        guidance: Scale of classifier-free guidance.
        read_at: 0-indexed steps.

    Raises:
        UserError: A step that the trajectory lacks, too little memory.
    """
    settings = plan.settings
    check_steps(steps, read_at)
    shape = plan.spec.architecture.latent_shape(settings.resolution)
    with sentence_for_full_memory(backbone, settings.resolution):
        for run in runs_of(prompts, settings.batch_size):
            conditioning, row_of = encode_prompts(backbone, run["prompt"].tolist())
            with backbone.on_device("text_encoders"):
                empty = backbone.encode_prompts([""]).to(backbone.device)
            noise = _noise(settings.seed, run["prompt_id"].tolist(), shape)
            with backbone.on_device("transformer"):
                trace = BlockTrace(backbone)
                for batch in _batches(len(run), settings.batch_size):
                    rows = conditioning.rows(row_of[batch]).to(backbone.device)
                    for state in denoise(backbone, noise[batch], rows, empty, steps=steps, guidance=guidance):
                        if state.step in read_at:
                            blocks = _run(trace, backbone, state.latents, rows, state.sigma, plan.blocks, reduce)
                            yield Reading(run.iloc[batch], batch, state.sigma, state.step, blocks, rows.parts)
                        if state.step >= max(read_at):
                            break


def check_steps(steps: int, read_at: Sequence[int]) -> None:
    """Refuse steps that a trajectory lacks.

    Raises:
        UserError: With the steps that exist.
    """
    wrong = [step for step in read_at if not 0 <= step < steps]
    if wrong or not read_at:
        requested = ", ".join(map(str, read_at)) or "none"
        raise UserError(f"A trajectory of {steps} steps can be read at steps 0 … {steps - 1}, got {requested}.")


def _run(
    trace: BlockTrace,
    backbone: Backbone,
    latents: Float[Tensor, "row channel height width"],
    conditioning: Conditioning,
    sigma: float,
    blocks: Sequence[int],
    reduce: Reduce,
) -> list[Any]:
    inputs, layout = backbone.inputs(latents, conditioning, sigma), backbone.layout(latents, conditioning)
    return trace.run(inputs, layout, blocks, lambda block, streams: reduce(block, streams, conditioning.parts))


def _noise(seed: int, keys: Sequence[str], shape: Sequence[int]) -> Float[Tensor, "item channel row column"]:
    return torch.from_numpy(np.stack([item_noise(seed, key, tuple(shape)) for key in keys]))


def runs_of(rows: pd.DataFrame, batch_size: int) -> Iterator[pd.DataFrame]:
    """Cut rows into runs of whole batches."""
    length = max(1, _RUN_LENGTH // batch_size) * batch_size
    return (rows.iloc[batch] for batch in _batches(len(rows), length))


def _batches(rows: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
