"""The one way from a picture's bytes to pixels: known formats, bounded sizes, every failure named."""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import cast

from PIL import Image, ImageOps, UnidentifiedImageError

from probing.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Formats that data sets use. Others are not tried, whatever a file is named: some are handed to other programs."""
MOST_PIXELS = 64_000_000
"""Pixels of a picture, 8000 × 8000: 256 MB with alpha, which several threads can hold. Data sets have fewer."""
MOST_BYTES = 2**28
"""Bytes of an encoded picture; a lossless one of :data:`MOST_PIXELS` has less."""

# Pillow warns from 89 million pixels on; here smaller pictures are refused already.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def decode(data: bytes, where: str, record: str) -> Image.Image:
    """Decode a picture to RGB, or RGBA where it has transparency, upright and without metadata.

    Of an animation the first frame is taken. Greys of 16 bits are scaled to 8; damaged EXIF is left out.

    Args:
        data: The encoded picture.
        where: File or column, for the message.
        record: Item, for the message.

    Raises:
        UserError: Empty, cut off, too large, of another format, or with values without a stated range; with where it
            came from and the record.
    """
    try:
        if len(data) > MOST_BYTES:
            raise UserError(f"it has {len(data):,} bytes, and at most {MOST_BYTES:,} are read")
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise UserError(f"it has {width} × {height} pixels, and at most {MOST_PIXELS:,} are read")
            image.load()
            return resolve(image)
    except MemoryError as error:
        raise UserError(f"{where} of record {record!r} does not fit in memory; make it smaller.") from error
    # Decoders raise whatever their format suggests.
    except Exception as error:
        reason = _reason(data, error)
        raise UserError(f"{where} of record {record!r} cannot be read ({reason}); replace the file.") from error


def resolve(image: Image.Image) -> Image.Image:
    """Turn a loaded picture upright and into RGB, or RGBA where it has transparency; drop its metadata.

    Raises:
        UserError: Its values have no stated range.
    """
    try:
        image = ImageOps.exif_transpose(image)
    # Pixels are there, and metadata are read by other code: a block that is damaged says nothing of how to turn them.
    except Exception:
        image = image.copy()
    image = _eight_bits(image)
    resolved = image.convert("RGBA" if image.has_transparency_data else "RGB")
    resolved.info = {}
    return resolved


def _eight_bits(image: Image.Image) -> Image.Image:
    if not image.mode.startswith(("I", "F")):
        return image
    # A PNG has 8 or 16 bits; older versions of Pillow open the latter as 32.
    if not image.mode.startswith("I;16") and not (image.mode == "I" and image.format == "PNG"):
        low, high = cast(tuple[float, float], image.getextrema())
        raise UserError(
            f"got a picture of mode {image.mode} with values from {low} to {high}, expected 8 or 16 bits each; "
            "save it so, for nothing says which value is white"
        )
    # Pillow's own conversion would clip instead of scale.
    return image.convert("I").point(lambda value: value / 257.0).convert("L")


def _reason(data: bytes, error: Exception) -> str:
    if not data:
        return "it is empty"
    if isinstance(error, UnidentifiedImageError):
        return f"it is no picture of a known format: {', '.join(FORMATS)}"
    return " ".join(str(error).split()) or type(error).__name__
