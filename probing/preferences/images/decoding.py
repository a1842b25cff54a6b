"""Decode pictures safely. No other module decodes the bytes of a data set.

Every error of Pillow, while decoding and after, becomes a UserError with the file and the record.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from probing.errors import UserError
from probing.preferences.images.preparation import upright
from probing.preferences.images.tiff_tags import check_tags

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Accepted formats (AVIF if Pillow has it). Others are no formats of data sets, or start programs, as EPS does. The
first frame of an animation is decoded."""
MAX_PIXELS = 64_000_000
"""Largest width × height, 8000 × 8000. Checked before decoding; a picture of this size takes 0.8 GB to prepare."""
MAX_SIDE = 65_535
"""Longest side, as in JPEG. Resampling a longer one takes gigabytes for its filter."""
MAX_BYTES = 128 * 2**20
"""Largest encoded size."""
_LONGEST_REASON = 200
_SIXTEEN_BITS = {"I;16", "I;16B", "I;16L", "I;16N", "I;16R"}
"""Pillow's names of samples that are unsigned and use all 16 bits."""
_GREY_STEPS = {"L;2": 85, "L;4": 17}
"""Factor from 2- or 4-bit grey samples of a PNG to 8 bits. Pillow scales pixels by it, not the transparent value."""


def decode(data: bytes, where: str, record: str) -> Image.Image:
    """Decode a picture.

    Args:
        data: The encoded picture.
        where: The file, or the column and file, for messages.
        record: The record, for messages.

    Returns:
        An upright picture of mode RGB or RGBA, without metadata. A broken EXIF block is ignored.

    Raises:
        UserError: It is empty, cut off, damaged, too large, of another format, or its colours have no stated range.
    """
    with name_errors(where, record):
        if not data:
            raise ValueError("it is empty")
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is larger than the limit of {MAX_BYTES // 2**20} MiB")
        # Pillow warns about odd metadata and about sizes that are checked here.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        check_tags(data)
        with _identify(data) as image:
            width, height = image.size
            if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
                raise ValueError(
                    f"it has {width} × {height} pixels, the limit is {MAX_PIXELS:,} and {MAX_SIDE:,} a side"
                )
            samples = _sample_format(image)
            if image.format == "PNG":
                _check_png(data)
            image.load()
            return upright(_scaled_samples(image, samples))


@contextmanager
def name_errors(where: str, record: str) -> Iterator[None]:
    """Turn any error into a UserError of one line with the file and the record."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"{one_line(where)} of record {record!r} cannot be read ({_reason(error)}); replace the file."
        ) from error


def one_line(text: str) -> str:
    """Escape line breaks and other characters that a terminal cannot print."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    text = one_line(" ".join(str(error).split())).rstrip(".") or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 1]}…"


def _identify(data: bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(data), formats=_readable_formats())
    except UnidentifiedImageError as error:
        names = ", ".join(FORMATS[:-1])
        raise ValueError(f"it is no picture in {names} or {FORMATS[-1]}") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"it has more than {MAX_PIXELS:,} pixels: a decompression bomb") from error


def _readable_formats() -> list[str]:
    # Pillow raises for a name that it was built without.
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _sample_format(image: Image.Image) -> str:
    """Return Pillow's name of the encoded samples, such as ``I;16B``; decoding removes it."""
    tiles: Any = getattr(image, "tile", None)
    if not tiles:
        return ""
    arguments = tiles[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _scaled_samples(image: Image.Image, samples: str) -> Image.Image:
    """Scale Pillow's values to the encoded samples where Pillow does not."""
    if image.mode.startswith("I") and samples in _SIXTEEN_BITS:
        values = np.asarray(image).astype(np.uint16)
        tags = getattr(image, "tag_v2", {})
        grey = Image.fromarray(65535 - values if tags.get(262) == 0 else values)
        grey.info = image.info
        return grey
    if image.mode.startswith(("I", "F")):
        raise ValueError(
            f"its samples of type {samples or image.mode} have no stated white, expected 8 or 16 bits each"
        )
    if "transparency" in image.info and image.format == "PNG":
        if samples == "RGB;16B":
            raise ValueError("its transparent colour has 16 bits a channel, expected 8")
        if samples in _GREY_STEPS:
            image.info["transparency"] *= _GREY_STEPS[samples]
    return image


def _check_png(data: bytes) -> None:
    """Check the checksums of the pixels' chunks, which Pillow skips."""
    at = 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, end = data[at + 4 : at + 8], at + 8 + length
        if kind == b"IEND" or end + 4 > len(data):
            return
        if kind == b"IDAT" and zlib.crc32(memoryview(data)[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise ValueError("the checksum of its pixels is wrong")
        at = end + 4
