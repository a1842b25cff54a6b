"""Encode prompts and pictures: each different prompt once, pictures opened a batch ahead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probing.backbones import Backbone, Conditioning
from probing.features.settings import ExtractionSettings
from probing.preferences import PreferenceData, prepare
from probing.preferences.images import picture_digest

_ENCODED_AT_ONCE = 2**22
"""Pixels that the VAE encodes at once: it needs far more memory than the transformer does."""
_PROMPTS_AT_ONCE = 16
_IMAGE_WORKERS = 4


def encode_prompts(backbone: Backbone, prompts: Sequence[str]) -> tuple[Conditioning, Int[Tensor, " prompt"]]:
    """Encode each different prompt once; return the encoded prompts, and the row of each of ``prompts``."""
    different = list(dict.fromkeys(prompts))
    row = {prompt: i for i, prompt in enumerate(different)}
    encoded = [
        backbone.encode_prompts(different[start : start + _PROMPTS_AT_ONCE])
        for start in range(0, len(different), _PROMPTS_AT_ONCE)
    ]
    return Conditioning.concatenate(encoded), torch.tensor([row[prompt] for prompt in prompts])


def encode_images(
    backbone: Backbone, data: PreferenceData, item_ids: Sequence[str], settings: ExtractionSettings
) -> Iterator[tuple[Float[Tensor, "item channel row column"], list[bytes]]]:
    """Open images in threads, a batch ahead of the VAE; yield latents, and digests of the pictures."""
    resolution = settings.resolution

    def pixels(item_id: str) -> tuple[np.ndarray, bytes]:
        image = data.open_image(item_id)
        prepared = prepare(image, resolution, settings.resize, settings.background)
        return np.asarray(prepared), picture_digest(image)

    size = max(1, min(settings.batch_size, _ENCODED_AT_ONCE // resolution**2))
    batches = [item_ids[start : start + size] for start in range(0, len(item_ids), size)]
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(_IMAGE_WORKERS))
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        ahead = [pool.submit(pixels, item_id) for item_id in batches[0]]
        for following in [*batches[1:], []]:
            current, ahead = ahead, [pool.submit(pixels, item_id) for item_id in following]
            opened = [future.result() for future in current]
            stacked = torch.from_numpy(np.stack([image for image, _ in opened]))
            latents = backbone.encode_images(stacked.permute(0, 3, 1, 2).float().div(127.5).sub(1.0))
            yield latents, [digest for _, digest in opened]
