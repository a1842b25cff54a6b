"""Pictures as models take them: RGB, square, of one resolution. That is decided here and nowhere else."""

from __future__ import annotations

import hashlib

from PIL import Image, ImageOps

from probing.errors import UserError
from probing.preferences.decoding import resolve

RESIZES = ("center-crop", "pad", "stretch")
BACKGROUNDS = ("white", "gray", "black")
RULES = {"color_mode": "RGB", "exif_orientation": "applied", "resampling": "Lanczos"}
"""What is not a choice; recorded in every store beside what is."""


def prepare(image: Image.Image, resolution: int, resize: str = "center-crop", background: str = "white") -> Image.Image:
    """Make a picture an RGB square.

    EXIF orientation is applied, transparency is laid on the background, other colour modes become RGB.

    Args:
        image: Any picture that Pillow opens.
        resolution: Side of the square, in pixels.
        resize: ``center-crop`` (keep the middle), ``pad`` (keep all, the background beside it) or ``stretch``.
        background: Of :data:`BACKGROUNDS`.

    Raises:
        UserError: The resize rule or background is unknown, or the picture's numbers have no stated range.
    """
    if resize not in RESIZES:
        raise UserError(f"Unknown resize rule {resize!r}; known are {', '.join(RESIZES)}.")
    if background not in BACKGROUNDS:
        raise UserError(f"Unknown background {background!r}; known are {', '.join(BACKGROUNDS)}.")
    image = upright_rgb(image, background)
    size = (resolution, resolution)
    if image.size == size:
        return image
    if resize == "center-crop":
        return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    if resize == "pad":
        return ImageOps.pad(image, size, Image.Resampling.LANCZOS, color=background)
    return image.resize(size, Image.Resampling.LANCZOS)


def upright_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """Make a picture RGB as it is meant to be seen, in its own size.

    Raises:
        UserError: Its values have no stated range.
    """
    image = resolve(image)
    if image.mode == "RGB":
        return image
    behind = Image.new("RGBA", image.size, background)
    return Image.alpha_composite(behind, image).convert("RGB")


def picture_digest(image: Image.Image) -> bytes:
    """Return 16 bytes that two pictures share if their sizes and upright pixels are equal, however they are encoded."""
    image = image if image.mode in ("RGB", "RGBA") else resolve(image)
    digest = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    # An alpha channel without transparency is no difference.
    digest.update(image.convert("RGBA").tobytes())
    return digest.digest()
