"""Encode prompts and pictures, or read them where they are kept: each different prompt once, pictures a batch ahead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from probing.backbones import Backbone, Conditioning
from probing.features.kept_inputs import KeptInputs
from probing.features.memory import FittingBatches
from probing.features.settings import ExtractionSettings, images_at_once
from probing.preferences import PreferenceData, prepare
from probing.preferences.images import picture_digest

_PROMPTS_AT_ONCE = 16
_IMAGE_WORKERS = 4


def prompt_batches(prompts: Iterable[str]) -> list[list[str]]:
    """Return the batches in which prompts are encoded, each different one once."""
    different = list(dict.fromkeys(prompts))
    return [different[start : start + _PROMPTS_AT_ONCE] for start in range(0, len(different), _PROMPTS_AT_ONCE)]


def encode_prompts(
    backbone: Backbone, prompts: Sequence[str], kept: KeptInputs | None = None
) -> tuple[Conditioning, Int[Tensor, " prompt"]]:
    """Encode each different prompt once; return the encoded prompts, and the row of each of ``prompts``."""
    chunks = prompt_batches(prompts)
    row = {prompt: i for i, prompt in enumerate(prompt for chunk in chunks for prompt in chunk)}
    read = [None if kept is None else kept.read_prompts(chunk) for chunk in chunks]
    missing = [number for number, conditioning in enumerate(read) if conditioning is None]
    if missing:
        fitting = FittingBatches()
        with backbone.on_device("text_encoders"):
            for number in missing:
                read[number] = encoded = _encode_words(backbone, chunks[number], fitting)
                if kept is not None:
                    kept.keep_prompts(chunks[number], encoded)
    found = [conditioning for conditioning in read if conditioning is not None]
    return Conditioning.concatenate(found), torch.tensor([row[prompt] for prompt in prompts])


def encode_images(
    backbone: Backbone,
    data: PreferenceData,
    item_ids: Sequence[str],
    settings: ExtractionSettings,
    kept: KeptInputs | None = None,
) -> tuple[Float[Tensor, "item channel row column"], list[bytes]]:
    """Return latents, and digests of the pictures; those that are not kept are opened in threads, ahead of the VAE.

    A batch of which one picture is missing is encoded whole, so that no picture gets other batch mates.
    """
    size = images_at_once(settings.batch_size, settings.resolution)
    batches = [item_ids[start : start + size] for start in range(0, len(item_ids), size)]
    keys = [[data.image_key(item_id) for item_id in batch] for batch in batches] if kept is not None else []
    read = [None if kept is None else kept.read_pictures(keys[number]) for number in range(len(batches))]
    missing = [number for number, batch in enumerate(read) if batch is None]
    if missing:
        with backbone.on_device("vae"):
            encoded = _encode_batches(backbone, data, [batches[number] for number in missing], settings)
            for number, (latents, digests) in zip(missing, encoded, strict=True):
                read[number] = latents, digests
                if kept is not None:
                    kept.keep_pictures(keys[number], latents, digests)
    whole = [batch for batch in read if batch is not None]
    # One memory layout, whether they come from a convolution or from the disk: it decides the order of sums.
    latents = torch.cat([latents for latents, _ in whole]).contiguous()
    return latents, [digest for _, digests in whole for digest in digests]


def stack_pixels(squares: Sequence[UInt8[np.ndarray, "row column 3"]]) -> Float[Tensor, "image 3 row column"]:
    """Stack prepared pictures of one size, as pixels in [−1, 1]."""
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def _encode_batches(
    backbone: Backbone, data: PreferenceData, batches: Sequence[Sequence[str]], settings: ExtractionSettings
) -> Iterator[tuple[Float[Tensor, "item channel row column"], list[bytes]]]:
    """Open pictures a batch ahead of the VAE; yield latents and digests of each batch."""
    resolution = settings.resolution

    def pixels(item_id: str) -> tuple[np.ndarray, bytes]:
        image = data.open_image(item_id)
        prepared = prepare(image, resolution, settings.resize, settings.background)
        return np.asarray(prepared), picture_digest(image)

    fitting = FittingBatches()
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(_IMAGE_WORKERS))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        ahead = [pool.submit(pixels, item_id) for item_id in batches[0]]
        for following in [*batches[1:], []]:
            current, ahead = ahead, [pool.submit(pixels, item_id) for item_id in following]
            opened = [future.result() for future in current]
            latents = _encode_squares(backbone, [square for square, _ in opened], fitting)
            yield latents, [digest for _, digest in opened]


def _encode_words(backbone: Backbone, prompts: Sequence[str], fitting: FittingBatches) -> Conditioning:
    def encode(rows: slice) -> Conditioning:
        return backbone.encode_prompts(prompts[rows])

    return Conditioning.concatenate([part for _, part in fitting.run(slice(0, len(prompts)), encode)])


def _encode_squares(
    backbone: Backbone, squares: Sequence[UInt8[np.ndarray, "side side 3"]], fitting: FittingBatches
) -> Float[Tensor, "item channel row column"]:
    def encode(rows: slice) -> Tensor:
        return backbone.encode_images(stack_pixels(squares[rows]))

    return torch.cat([part for _, part in fitting.run(slice(0, len(squares)), encode)])
