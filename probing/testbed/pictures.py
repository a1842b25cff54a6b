"""Pictures that the testbed's models make: decoded from latents, and judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from probing.testbed.caption_check import Reading, check_caption
from probing.testbed.preferences import reward_of
from probing.testbed.scenes import parse

_DECODED_AT_ONCE = 64


@torch.inference_mode()
def decode(vae: Any, latents: Float[Tensor, "item channel row column"]) -> list[Image.Image]:
    """Decode clean latents as the pipeline does."""
    pictures = []
    for part in latents.split(_DECODED_AT_ONCE):
        scaled = part.to(vae.device, vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
        pixels = vae.decode(scaled).sample.float().cpu()
        squares = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        pictures += [Image.fromarray(square) for square in np.ascontiguousarray(squares)]
    return pictures


def judged(readings: Sequence[Reading], captions: Sequence[str]) -> pd.DataFrame:
    """Score what the judge reads.

    Returns:
        One row a picture: ``alignment`` (share of the caption's attributes that are right), ``whole`` (1 if all are),
        ``fidelity`` (1 − damage), and ``judge`` (the true reward of the preference data).
    """
    rows = []
    for reading, caption in zip(readings, captions, strict=True):
        right = list(check_caption(reading, parse(caption)).values())
        rows.append(
            {
                "alignment": float(np.mean(right)),
                "whole": float(all(right)),
                "fidelity": reading.fidelity,
                "judge": reward_of(right.count(False), reading.damage),
            }
        )
    return pd.DataFrame(rows)
