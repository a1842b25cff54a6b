"""Pictures as models take them: RGB, square, of one resolution. That is decided here and nowhere else."""

from __future__ import annotations

import hashlib
from typing import cast

from PIL import Image, ImageOps

from probing.errors import UserError

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
        UserError: Its numbers have no stated range.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        # Sixteen bits a channel: Pillow's own conversion would clip instead of scale.
        low, high = cast(tuple[float, float], image.getextrema())
        if image.mode == "F" or low < 0 or high > 65535:
            raise UserError(
                f"Got a picture of mode {image.mode} with values from {low} to {high}, expected 8 or 16 bits each; "
                "save it so, for nothing says which value is white."
            )
        image = image.convert("I").point(lambda value: value / 257.0).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        behind = Image.new("RGBA", image.size, background)
        return Image.alpha_composite(behind, image).convert("RGB")
    return image.convert("RGB")


def picture_digest(image: Image.Image) -> bytes:
    digest = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    digest.update(image.convert("RGBA").tobytes())
    return digest.digest()
