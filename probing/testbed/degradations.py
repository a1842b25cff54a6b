"""Degrade an image by a given strength; the content still matches the caption."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

KINDS = ("blur", "noise", "blocks", "broken")

_BLUR_RADIUS = 2.2
_NOISE_DEVIATION = 45.0
_BLOCK = 8
_BROKEN_PATCHES = 6
_PATCH = 9


def degrade(image: Image.Image, kind: str, strength: float, rng: np.random.Generator) -> Image.Image:
    """Degrade an RGB image.

    Args:
        image: Is not changed.
        kind: ``blur`` (Gaussian, radius up to 2.2 px), ``noise`` (Gaussian, deviation up to 45 of 255),
            ``blocks`` (blend with its own 8×8 block averages, up to 85%) or ``broken`` (up to 6 patches of
            9×9 px swapped with patches a few pixels away, mostly on things).
        strength: From 0 (no change) to 1.
        rng: Draws the noise and the positions of patches.

    Raises:
        ValueError: The kind is unknown or the strength is outside [0, 1].
    """
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength is in [0, 1], got {strength}.")
    if kind not in KINDS:
        raise ValueError(f"Unknown degradation {kind!r}; known are {', '.join(KINDS)}.")
    if strength == 0.0:
        return image.copy()
    if kind == "blur":
        return image.filter(ImageFilter.GaussianBlur(float(_BLUR_RADIUS * strength)))
    pixels = np.asarray(image).astype(np.float64)
    if kind == "noise":
        pixels = pixels + _NOISE_DEVIATION * strength * rng.standard_normal(pixels.shape)
    elif kind == "blocks":
        pixels = pixels + 0.85 * strength * (_block_averages(pixels) - pixels)
    else:
        pixels = _shift_patches(pixels, max(1, round(_BROKEN_PATCHES * strength)), rng)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), "RGB")


def _block_averages(pixels: np.ndarray) -> np.ndarray:
    height, width, channels = pixels.shape
    blocks = pixels.reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK, channels)
    return np.broadcast_to(blocks.mean(axis=(1, 3), keepdims=True), blocks.shape).reshape(pixels.shape)


def _shift_patches(pixels: np.ndarray, patches: int, rng: np.random.Generator) -> np.ndarray:
    """Swap patches with others a few pixels away, centred where the image differs from its background."""
    pixels = pixels.copy()
    height, width, _ = pixels.shape
    # No thing touches an edge, so the ends of a row are background, in a gradient too.
    background = pixels[:, [0, -1]].mean(axis=1, keepdims=True)
    busy = np.argwhere(np.abs(pixels - background).sum(axis=-1) > 60)
    if len(busy) == 0:
        busy = np.argwhere(np.ones((height, width), dtype=bool))
    for _ in range(patches):
        centre = busy[int(rng.integers(len(busy)))]
        shift = rng.integers(4, 10, size=2) * rng.choice([-1, 1], size=2)
        (y, x), (v, u) = (
            np.clip(middle - _PATCH // 2, 0, [height - _PATCH, width - _PATCH]) for middle in (centre, centre + shift)
        )
        patch, shifted = pixels[y : y + _PATCH, x : x + _PATCH].copy(), pixels[v : v + _PATCH, u : u + _PATCH].copy()
        pixels[y : y + _PATCH, x : x + _PATCH] = shifted
        pixels[v : v + _PATCH, u : u + _PATCH] = patch
    return pixels
