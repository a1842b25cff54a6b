"""Prepare pictures for models: RGB, square, of one resolution. No other module converts pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import cast

import numpy as np
from PIL import Image, ImageOps

from probing.errors import UserError
from probing.preferences.images.tiff_tags import ORIENTATION, check_tags

RESIZES = ("center-crop", "pad", "stretch")
BACKGROUNDS = ("white", "gray", "black")
RULES = {"color_mode": "RGB", "exif_orientation": "applied", "resampling": "Lanczos"}
"""Fixed rules of the preparation, recorded in every store."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def prepare(image: Image.Image, resolution: int, resize: str = "center-crop", background: str = "white") -> Image.Image:
    """Make a picture an RGB square.

    EXIF orientation is applied, transparent parts get the background, other colour modes become RGB.

    Args:
        image: Any picture that Pillow opens.
        resolution: Side of the square, in pixels.
        resize: ``center-crop`` (keep the middle), ``pad`` (keep all, on the background) or ``stretch``.
        background: One of :data:`BACKGROUNDS`.

    Raises:
        UserError: The resize rule or background is unknown, or the picture's numbers have no stated range.
    """
    if resize not in RESIZES:
        raise UserError(f"Unknown resize rule {resize!r}; give one of {', '.join(RESIZES)}.")
    if background not in BACKGROUNDS:
        raise UserError(f"Unknown background {background!r}; give one of {', '.join(BACKGROUNDS)}.")
    image = upright_rgb(image, background)
    size = (resolution, resolution)
    if image.size == size:
        return image
    if resize == "center-crop":
        return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    if resize == "pad":
        return _pad(image, resolution, background)
    return image.resize(size, Image.Resampling.LANCZOS)


def _pad(image: Image.Image, side: int, background: str) -> Image.Image:
    width, height = image.size
    if round(min(width, height) / max(width, height) * side) > 0:
        return ImageOps.pad(image, (side, side), Image.Resampling.LANCZOS, color=background)
    # Pillow would scale the short side of a very long picture to 0 pixels.
    line = image.resize((side, 1) if width > height else (1, side), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (side, side), background)
    square.paste(line, ((side - line.width) // 2, (side - line.height) // 2))
    return square


def upright_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """Make a picture RGB in its own size: upright, transparent parts on the background.

    Raises:
        UserError: Its numbers have no stated range.
    """
    image = upright(image)
    if image.mode == "RGB":
        return image
    canvas = Image.new("RGBA", image.size, background)
    composite = Image.alpha_composite(canvas, image)
    # Free the memory of one large picture.
    del canvas
    return composite.convert("RGB")


def upright(image: Image.Image) -> Image.Image:
    """Make a picture RGB, or RGBA where it has transparency: EXIF orientation applied, metadata dropped.

    Grey values of 16 bits are divided by 257. A broken EXIF block is ignored.

    Raises:
        UserError: Its numbers have no stated range.
    """
    if image.mode in ("RGB", "RGBA") and not image.info and type(image) is Image.Image:
        return image
    turn = _TURNS.get(_orientation(image))
    if image.mode.startswith("I;16"):
        image = _eight_bits(image)
    elif image.mode.startswith(("I", "F")):
        low, high = cast(tuple[float, float], image.getextrema())
        raise UserError(
            f"Got a picture of mode {image.mode} with values from {low} to {high}, expected 8 or 16 bits each; "
            "save it with 8 or 16 bits: no other mode defines the value of white."
        )
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if turn is not None:
        image = image.transpose(turn)
    image.info = {}
    return image


def picture_digest(image: Image.Image) -> bytes:
    """Identify a picture by its size and its upright pixels, in 16 bytes.

    Formats, compression and metadata are ignored. An opaque RGBA picture equals its RGB picture. The colour of a fully
    transparent pixel is ignored too: it is invisible on every background, and encoders change it.

    Raises:
        UserError: Its numbers have no stated range.
    """
    image = upright(image)
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (255, 255):
        image = image.convert("RGB")
    digest = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    if image.mode == "RGBA":
        pixels = np.array(image)
        pixels[pixels[..., 3] == 0] = 0
        digest.update(pixels.tobytes())
    else:
        digest.update(image.tobytes())
    return digest.digest()


def _orientation(image: Image.Image) -> int:
    try:
        for block in _exif_blocks(image):
            check_tags(block.removeprefix(b"Exif\0\0"))
        value = image.getexif().get(ORIENTATION, 1)
        return value if isinstance(value, int) else 1
    except Exception:
        # The pixels are readable; only the metadata are broken.
        return 1


def _exif_blocks(image: Image.Image) -> Iterator[bytes]:
    if block := image.info.get("exif"):
        yield block
    elif block := image.info.get("Raw profile type exif"):
        yield bytes.fromhex("".join(block.split("\n")[3:]))


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint16)
    grey = Image.fromarray((values // 257).astype(np.uint8))
    if "transparency" not in image.info:
        return grey
    alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
    return Image.merge("LA", (grey, Image.fromarray(alpha)))
