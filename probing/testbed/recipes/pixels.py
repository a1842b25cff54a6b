"""Scenes as training batches: captions and pixel tensors in [−1, 1]."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from probing.testbed.degradations import KINDS, degrade
from probing.testbed.scenes import render, sample_scene


def to_tensor(images: list[Image.Image]) -> Tensor:
    """Stack RGB images into a float32 tensor (image, 3, height, width) in [−1, 1]."""
    stacked = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def sample_batch(size: int, rng: np.random.Generator, *, degraded: float = 0.0) -> tuple[list[str], Tensor]:
    """Draw captions and images (image, 3, 64, 64); a fraction ``degraded`` of the images is spoilt."""
    captions, images = [], []
    for _ in range(size):
        scene = sample_scene(rng)
        image = render(scene, rng)
        if rng.random() < degraded:
            image = degrade(image, KINDS[int(rng.integers(len(KINDS)))], float(rng.random()), rng)
        captions.append(scene.caption)
        images.append(image)
    return captions, to_tensor(images)
