"""Convert images to the input tensors of the testbed's networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from probing.testbed.render import RESOLUTION


def from_pixels(pixels: np.ndarray) -> Tensor:
    """Convert pixels (…, height, width, 3) in 0 … 255 to a float32 tensor (…, 3, height, width) in [−1, 1]."""
    return torch.from_numpy(pixels).movedim(-1, -3).float().div(127.5).sub(1.0)


def to_tensor(images: Sequence[Image.Image]) -> Tensor:
    """Stack images as (image, 3, 64, 64) in [−1, 1], converted to RGB and resized to 64×64 if needed."""
    side = (RESOLUTION, RESOLUTION)
    return from_pixels(
        np.stack([np.asarray(i.convert("RGB") if i.size == side else i.convert("RGB").resize(side)) for i in images])
    )
