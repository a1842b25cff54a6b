"""Open every picture once, in threads: is it readable, how large is it, and which other pictures does it equal?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import imagehash
import numpy as np
import pandas as pd
from jaxtyping import UInt8, UInt64
from joblib import Parallel, delayed
from PIL import Image

from probing.errors import UserError
from probing.preferences.data import PreferenceData
from probing.preferences.images import picture_digest, upright_rgb
from probing.preferences.images.decoding import one_line
from probing.progress import progress

WORKERS = 8
_THUMBNAIL_SIDE = 8

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class ScannedImages:
    """Properties of every picture.

    Attributes:
        table: One row a different picture, in the order of the items: ``image``, ``item_id`` (the first item with
            it), ``problem`` (empty, ``missing`` or ``unreadable``), ``reason``, ``width`` and ``height`` in pixels
            (upright; 0 if it cannot be read) and ``content`` (its :func:`picture_digest` on white; empty if it cannot
            be read).
        phash: Perceptual hash of each, 64 bits (DCT of the grey 32×32 picture; the ImageHash library's ``phash``).
        thumbnails: (picture, 192) each as 8×8 RGB pixels.
    """

    table: pd.DataFrame
    phash: UInt64[np.ndarray, " picture"]
    thumbnails: UInt8[np.ndarray, "picture 192"]

    @property
    def bad(self) -> pd.DataFrame:
        """Rows of the table whose picture is missing or unreadable."""
        return self.table[self.table["problem"] != ""]


def scan_images(
    data: PreferenceData, *, items: pd.DataFrame | None = None, workers: int = WORKERS, hashes: bool = True
) -> ScannedImages:
    """Open every picture of the data once. A picture that raises any error is unreadable; the scan continues.

    Args:
        data: The preference data.
        items: Scan the pictures of these items only; all if None.
        workers: Number of threads.
        hashes: Whether to compute hashes; without, ``content`` is empty and the arrays are zeros.
    """
    items = data.items if items is None else items
    pictures = items.drop_duplicates("image")[["image", "item_id"]].reset_index(drop=True)
    phash = np.zeros(len(pictures), dtype=np.uint64)
    thumbnails = np.zeros((len(pictures), 3 * _THUMBNAIL_SIDE**2), dtype=np.uint8)
    missing = set(data.images.missing(pictures["image"]))
    rows = []

    def scan(picture: tuple[str, str]) -> tuple[tuple[Any, ...], np.uint64, np.ndarray | None]:
        name, item_id = picture
        if name in missing:
            return ("missing", "there is no such file", 0, 0, ""), np.uint64(0), None
        try:
            image = upright_rgb(data.images.open(name, item_id))
            if not hashes:
                return ("", "", *image.size, ""), np.uint64(0), None
            return ("", "", *image.size, picture_digest(image).hex()), _phash(image), _thumbnail(image)
        except Exception as error:
            # One bad picture must not end a scan of a million, whatever the error.
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            return ("unreadable", one_line(reason), 0, 0, ""), np.uint64(0), None

    with progress(len(pictures), f"pictures of {data.name}", "pictures") as bar:
        names = zip(pictures["image"].astype(str), pictures["item_id"].astype(str), strict=True)
        for index, (row, code, thumbnail) in enumerate(map_in_threads(scan, names, workers)):
            rows.append(row)
            phash[index] = code
            if thumbnail is not None:
                thumbnails[index] = thumbnail
            bar.update()
    scanned = pd.DataFrame(rows, columns=["problem", "reason", "width", "height", "content"])
    return ScannedImages(pd.concat([pictures, scanned], axis=1), phash, thumbnails)


def map_in_threads(function: Callable[[_In], _Out], values: Iterable[_In], workers: int) -> Iterator[_Out]:
    """Yield the function of each value, in order; values are taken as workers become free."""
    yield from Parallel(n_jobs=workers, backend="threading", return_as="generator")(
        delayed(function)(value) for value in values
    )


def _phash(image: Image.Image) -> np.uint64:
    return np.packbits(imagehash.phash(image).hash.ravel()).view(">u8")[0].astype(np.uint64)


def _thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.BOX)).reshape(-1)
