"""Open every picture once, by several threads, and keep what tells whether it is good and whether it is there twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import imagehash
import numpy as np
import pandas as pd
from jaxtyping import UInt8, UInt64
from PIL import Image

from probing.errors import UserError
from probing.preferences.data import PreferenceData
from probing.preferences.images.decoding import one_line
from probing.preferences.images.preparation import picture_digest, upright_rgb
from probing.progress import progress

WORKERS = 8
_THUMBNAIL = 8
_AHEAD = 64
"""Pictures that wait, decoded, for their turn: large enough to keep the workers busy, and no memory to speak of."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class ScannedImages:
    """What a look at every picture told.

    Attributes:
        table: One row a different picture, in the order of the items: ``image``, ``item_id`` (the first item that
            shows it), ``problem`` (empty, ``missing`` or ``unreadable``), ``reason``, ``width`` and ``height`` in
            pixels (upright; 0 where it could not be read) and ``content`` (:func:`picture_digest` of it on
            white; empty likewise).
        phash: Perceptual hash of each, 64 bits (DCT of the grey 32×32 picture; the ImageHash library's ``phash``).
        thumbnails: (picture, 192) each as 8×8 RGB pixels.
    """

    table: pd.DataFrame
    phash: UInt64[np.ndarray, " picture"]
    thumbnails: UInt8[np.ndarray, "picture 192"]

    @property
    def bad(self) -> pd.DataFrame:
        return self.table[self.table["problem"] != ""]


def scan_images(
    data: PreferenceData, *, items: pd.DataFrame | None = None, workers: int = WORKERS, hashes: bool = True
) -> ScannedImages:
    """Open every picture of the data once. One that raises any error is counted as unreadable; the others go on.

    Args:
        data: Whose pictures.
        items: Of which items alone; all if None.
        workers: Threads that open pictures.
        hashes: Whether to hash them too; without, ``content`` is empty and the arrays are zeros.
    """
    different = (
        (data.items if items is None else items).drop_duplicates("image")[["image", "item_id"]].reset_index(drop=True)
    )
    phash = np.zeros(len(different), dtype=np.uint64)
    thumbnails = np.zeros((len(different), 3 * _THUMBNAIL**2), dtype=np.uint8)
    gone = set(data.images.missing(different["image"]))
    rows = []

    def look(picture: tuple[str, str]) -> tuple[tuple, np.uint64, np.ndarray | None]:
        name, item_id = picture
        if name in gone:
            return ("missing", "it is not there", 0, 0, ""), np.uint64(0), None
        try:
            image = upright_rgb(data.images.open(name, item_id))
            if not hashes:
                return ("", "", *image.size, ""), np.uint64(0), None
            return ("", "", *image.size, picture_digest(image).hex()), _phash(image), _thumbnail(image)
        except Exception as error:
            # One bad picture, whatever the error, must not end a scan of a million.
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            return ("unreadable", one_line(reason), 0, 0, ""), np.uint64(0), None

    with progress(len(different), f"pictures of {data.name}", "pictures") as bar:
        names = zip(different["image"].astype(str), different["item_id"].astype(str), strict=True)
        for row, (said, code, thumbnail) in enumerate(_in_order(look, names, workers)):
            rows.append(said)
            phash[row] = code
            if thumbnail is not None:
                thumbnails[row] = thumbnail
            bar.update()
    seen = pd.DataFrame(rows, columns=["problem", "reason", "width", "height", "content"])
    return ScannedImages(pd.concat([different, seen], axis=1), phash, thumbnails)


def _in_order(work: Callable[[_In], _Out], given: Iterable[_In], workers: int) -> Iterator[_Out]:
    """Map by threads, in order, never further ahead than ``_AHEAD``: a million decoded pictures fit no memory."""
    waiting: deque[Future[_Out]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for one in given:
            waiting.append(pool.submit(work, one))
            if len(waiting) >= _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _phash(image: Image.Image) -> np.uint64:
    return np.packbits(imagehash.phash(image).hash.ravel()).view(">u8")[0].astype(np.uint64)


def _thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)).reshape(-1)
