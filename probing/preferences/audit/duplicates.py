"""Pictures that are there twice: the same pixels, or nearly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from probing.preferences.audit.pictures import ScannedImages
from probing.preferences.data import SPLITS, PreferenceData

NEAR_BITS = 3
"""Perceptual hashes are near when they differ in no more of their 64 bits."""
NEAR_COLOUR = 4.0
"""And thumbnails when their 192 values differ by no more on average, of 255."""
_BANDS = 4
_AT_ONCE = 2**18
"""Pairs of hashes compared in one step; their thumbnails take 0.1 GB."""


def splits_of_images(data: PreferenceData, images: pd.Series) -> np.ndarray:
    """Say in which splits each picture is shown: (picture, 3) true or false, in the order of ``SPLITS``."""
    items = pd.concat(
        [
            data.pairs[["first", "split"]].rename(columns={"first": "item_id"}),
            data.pairs[["second", "split"]].rename(columns={"second": "item_id"}),
        ]
    )
    items = items.drop_duplicates()
    shown = items["item_id"].map(data.items.set_index("item_id")["image"])
    row = pd.Index(images).get_indexer(shown)
    there = np.zeros((len(images), len(SPLITS)), dtype=bool)
    there[row, items["split"].map({split: i for i, split in enumerate(SPLITS)}).to_numpy()] = True
    return there


def same_content(scanned: ScannedImages) -> pd.DataFrame:
    """List pictures whose pixels are those of an earlier one: ``image``, ``item_id``, ``same_as``."""
    table = scanned.table[scanned.table["content"] != ""]
    first = table.groupby("content", sort=False)["image"].transform("first")
    again = table[first != table["image"]]
    return again[["image", "item_id"]].assign(same_as=first[again.index]).reset_index(drop=True)


def across_splits(scanned: ScannedImages, there: np.ndarray) -> pd.DataFrame:
    """List pictures of a split that are, by name or pixels, in a less held-out one too.

    Args:
        scanned: The pictures.
        there: What :func:`splits_of_images` says of them.

    Returns:
        ``image``, ``split``, ``also`` (a picture with the same pixels), ``also_split``.
    """
    table = scanned.table
    # A picture that could not be read is known by its name alone.
    code, _ = pd.factorize(table["content"].where(table["content"] != "", table["image"]))
    found = []
    for held_out, other in _split_pairs():
        inside = np.flatnonzero(there[:, other])
        # Of each content, one picture of the other split.
        example = pd.Series(inside, index=code[inside])
        example = example[~example.index.duplicated()]
        rows = np.flatnonzero(there[:, held_out])
        also = example.reindex(code[rows])
        hit = also.notna().to_numpy()
        found.append(_named(table, rows[hit], held_out, also[hit].to_numpy(dtype=np.int64), other))
    return pd.concat(found, ignore_index=True)


def nearly_across_splits(scanned: ScannedImages, there: np.ndarray, *, bits: int = NEAR_BITS) -> pd.DataFrame:
    """List pictures of a split that look nearly like one of a less held-out one, as a copy saved anew or scaled does.

    Two pictures are near when their perceptual hashes differ in at most ``bits`` bits and their thumbnails in at most
    :data:`NEAR_COLOUR` on average. Same pixels are not listed again.

    Args:
        scanned: The pictures, with hashes.
        there: What :func:`splits_of_images` says of them.
        bits: From 0 to 3.

    Returns:
        As :func:`across_splits`, with ``bits`` and ``colour`` (how far apart), one row a held-out picture: its nearest.

    Raises:
        ValueError: ``bits`` is more than the search finds.
    """
    if not 0 <= bits < _BANDS:
        raise ValueError(f"Got {bits} bits, expected 0 to {_BANDS - 1}; two hashes farther apart are not searched for.")
    table = scanned.table
    readable = (table["content"] != "").to_numpy()
    content = table["content"].to_numpy()
    found = []
    for held_out, other in _split_pairs():
        left = np.flatnonzero(there[:, held_out] & readable)
        right = np.flatnonzero(there[:, other] & readable)
        for a, b in _near_pairs(scanned.phash, left, right, bits):
            differ = content[a] != content[b]
            a, b = a[differ], b[differ]
            apart = np.abs(scanned.thumbnails[a].astype(np.int16) - scanned.thumbnails[b]).mean(axis=1)
            near = apart <= NEAR_COLOUR
            a, b = a[near], b[near]
            distance = np.bitwise_count(scanned.phash[a] ^ scanned.phash[b])
            found.append(_named(table, a, held_out, b, other).assign(bits=distance, colour=apart[near].round(2)))
    if not found:
        return pd.DataFrame(columns=["image", "split", "also", "also_split", "bits", "colour"])
    pairs = pd.concat(found, ignore_index=True).sort_values(["bits", "colour", "also"], kind="stable")
    return pairs.drop_duplicates(["image", "split", "also_split"]).sort_values("image").reset_index(drop=True)


def _split_pairs() -> list[tuple[int, int]]:
    """Each two splits, the more held-out one first."""
    return [(late, early) for late in range(len(SPLITS)) for early in range(late)]


def _named(table: pd.DataFrame, rows: np.ndarray, split: int, others: np.ndarray, other: int) -> pd.DataFrame:
    images = table["image"].to_numpy()
    return pd.DataFrame(
        {"image": images[rows], "split": SPLITS[split], "also": images[others], "also_split": SPLITS[other]}
    )


def _near_pairs(
    phash: np.ndarray, left: np.ndarray, right: np.ndarray, bits: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows of ``left`` and ``right`` whose hashes differ in at most ``bits`` bits, some of them repeatedly.

    Hashes that differ in fewer bits than there are bands agree in at least one band, so only those are compared.
    """
    width = 64 // _BANDS
    for band in range(_BANDS):
        keys = (phash >> np.uint64(band * width)) & np.uint64(2**width - 1)
        left_sorted = left[np.argsort(keys[left], kind="stable")]
        starts = np.searchsorted(keys[left_sorted], np.arange(2**width + 1, dtype=np.uint64))
        right_sorted = right[np.argsort(keys[right], kind="stable")]
        ends = np.searchsorted(keys[right_sorted], np.arange(2**width + 1, dtype=np.uint64))
        for key in np.flatnonzero((np.diff(starts) > 0) & (np.diff(ends) > 0)):
            a = left_sorted[starts[key] : starts[key + 1]]
            b = right_sorted[ends[key] : ends[key + 1]]
            step = max(1, _AT_ONCE // len(b))
            for at in range(0, len(a), step):
                part = a[at : at + step]
                near = np.bitwise_count(phash[part][:, None] ^ phash[b][None, :]) <= bits
                i, j = np.nonzero(near)
                if len(i):
                    yield part[i], b[j]
