"""Find duplicate pictures: the same pixels, or nearly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from probing.preferences.audit.scan import ScannedImages
from probing.preferences.data import SPLITS, PreferenceData

NEAR_BITS = 3
"""Largest number of different bits, of 64, between the perceptual hashes of near duplicates."""
NEAR_COLOUR = 4.0
"""Largest mean difference between the thumbnails (192 values from 0 to 255) of near duplicates."""
_BANDS = 4
_HASH_PAIRS_AT_ONCE = 2**18
"""Pairs of hashes compared in one step; their thumbnails take 0.1 GB."""
_SPLIT_PAIRS = [(late, early) for late in range(len(SPLITS)) for early in range(late)]
"""Each two splits by position, the more held-out one first."""


def splits_of_images(data: PreferenceData, images: pd.Series) -> np.ndarray:
    """Return the splits that each picture is in: (picture, 3) booleans, in the order of ``SPLITS``."""
    items = pd.concat(
        [
            data.pairs[["first", "split"]].rename(columns={"first": "item_id"}),
            data.pairs[["second", "split"]].rename(columns={"second": "item_id"}),
        ]
    ).drop_duplicates()
    row = pd.Index(images).get_indexer(items["item_id"].map(data.items.set_index("item_id")["image"]))
    in_split = np.zeros((len(images), len(SPLITS)), dtype=bool)
    in_split[row, items["split"].map({split: i for i, split in enumerate(SPLITS)}).to_numpy()] = True
    return in_split


def same_content(scanned: ScannedImages) -> pd.DataFrame:
    """List pictures with the pixels of an earlier one: ``image``, ``item_id``, ``same_as``."""
    table = scanned.table[scanned.table["content"] != ""]
    first = table.groupby("content", sort=False)["image"].transform("first")
    repeated = table[first != table["image"]]
    return repeated[["image", "item_id"]].assign(same_as=first[repeated.index]).reset_index(drop=True)


def across_splits(scanned: ScannedImages, in_split: np.ndarray) -> pd.DataFrame:
    """List pictures of a split that are also in a less held-out one, by name or by pixels.

    Args:
        scanned: The pictures.
        in_split: The splits of each, as :func:`splits_of_images` returns them.

    Returns:
        ``image``, ``split``, ``also`` (a picture with the same pixels), ``also_split``.
    """
    table = scanned.table
    # A picture that cannot be read is identified by its name alone.
    content, _ = pd.factorize(table["content"].where(table["content"] != "", table["image"]))
    matches = []
    for held_out, other in _SPLIT_PAIRS:
        inside = np.flatnonzero(in_split[:, other])
        # One picture of the other split for each content.
        example = pd.Series(inside, index=content[inside])
        example = example[~example.index.duplicated()]
        rows = np.flatnonzero(in_split[:, held_out])
        also = example.reindex(content[rows])
        is_match = also.notna().to_numpy()
        matches.append(_named(table, rows[is_match], held_out, also[is_match].to_numpy(dtype=np.int64), other))
    return pd.concat(matches, ignore_index=True)


def nearly_across_splits(scanned: ScannedImages, in_split: np.ndarray, *, bits: int = NEAR_BITS) -> pd.DataFrame:
    """List pictures of a split that nearly equal one of a less held-out split, such as a scaled or recompressed copy.

    Two pictures are near when their perceptual hashes differ in at most ``bits`` bits and their thumbnails in at most
    :data:`NEAR_COLOUR` on average. Pictures with equal pixels are left to :func:`across_splits`.

    Args:
        scanned: The pictures, with hashes.
        in_split: The splits of each, as :func:`splits_of_images` returns them.
        bits: From 0 to 3.

    Returns:
        The columns of :func:`across_splits`, with ``bits`` and ``colour`` (the distances); one row a held-out picture,
        with the nearest match.

    Raises:
        ValueError: ``bits`` is more than the search finds.
    """
    if not 0 <= bits < _BANDS:
        raise ValueError(f"Got {bits} bits, expected 0 to {_BANDS - 1}: the search finds no more distant hashes.")
    table = scanned.table
    readable = (table["content"] != "").to_numpy()
    content = table["content"].to_numpy()
    matches = []
    for held_out, other in _SPLIT_PAIRS:
        left = np.flatnonzero(in_split[:, held_out] & readable)
        right = np.flatnonzero(in_split[:, other] & readable)
        for a, b in _near_pairs(scanned.phash, left, right, bits):
            differ = content[a] != content[b]
            a, b = a[differ], b[differ]
            colour = np.abs(scanned.thumbnails[a].astype(np.int16) - scanned.thumbnails[b]).mean(axis=1)
            near = colour <= NEAR_COLOUR
            a, b = a[near], b[near]
            distance = np.bitwise_count(scanned.phash[a] ^ scanned.phash[b])
            matches.append(_named(table, a, held_out, b, other).assign(bits=distance, colour=colour[near].round(2)))
    if not matches:
        return pd.DataFrame(columns=["image", "split", "also", "also_split", "bits", "colour"])
    pairs = pd.concat(matches, ignore_index=True).sort_values(["bits", "colour", "also"], kind="stable")
    return pairs.drop_duplicates(["image", "split", "also_split"]).sort_values("image").reset_index(drop=True)


def _named(table: pd.DataFrame, rows: np.ndarray, split: int, also: np.ndarray, also_split: int) -> pd.DataFrame:
    images = table["image"].to_numpy()
    return pd.DataFrame(
        {"image": images[rows], "split": SPLITS[split], "also": images[also], "also_split": SPLITS[also_split]}
    )


def _near_pairs(
    phash: np.ndarray, left: np.ndarray, right: np.ndarray, bits: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows of ``left`` and ``right`` whose hashes differ in at most ``bits`` bits, some of them repeatedly.

    Hashes that differ in fewer bits than there are bands agree in at least one band, so only those are compared.
    """
    width = 64 // _BANDS
    values = np.arange(2**width + 1, dtype=np.uint64)
    for band in range(_BANDS):
        keys = (phash >> np.uint64(band * width)) & np.uint64(2**width - 1)
        left_sorted, right_sorted = (rows[np.argsort(keys[rows], kind="stable")] for rows in (left, right))
        starts, ends = (np.searchsorted(keys[rows], values) for rows in (left_sorted, right_sorted))
        for key in np.flatnonzero((np.diff(starts) > 0) & (np.diff(ends) > 0)):
            a = left_sorted[starts[key] : starts[key + 1]]
            b = right_sorted[ends[key] : ends[key + 1]]
            step = max(1, _HASH_PAIRS_AT_ONCE // len(b))
            for start in range(0, len(a), step):
                part = a[start : start + step]
                i, j = np.nonzero(np.bitwise_count(phash[part][:, None] ^ phash[b][None, :]) <= bits)
                if len(i):
                    yield part[i], b[j]
