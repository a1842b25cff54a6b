"""Open the pictures of a data set, and make them what models take."""

from probing.preferences.images.decoding import decode
from probing.preferences.images.preparation import (
    BACKGROUNDS,
    RESIZES,
    RULES,
    picture_digest,
    prepare,
    upright,
    upright_rgb,
)
from probing.preferences.images.sources import DrawnImages, ImageFolder, ImageSource, ParquetImages, find_prefix

__all__ = [
    "BACKGROUNDS",
    "RESIZES",
    "RULES",
    "DrawnImages",
    "ImageFolder",
    "ImageSource",
    "ParquetImages",
    "decode",
    "find_prefix",
    "picture_digest",
    "prepare",
    "upright",
    "upright_rgb",
]
