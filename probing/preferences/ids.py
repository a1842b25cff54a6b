"""Find ids in columns of millions: exact, by 64-bit hashes, at eight bytes an id instead of a table of texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_CHUNK = 2**16


def repeated(ids: pd.Series) -> np.ndarray:
    """Return where an id has been before (id,)."""
    hashes = _hashes(ids)
    order = np.argsort(hashes, kind="stable")
    same = hashes[order][1:] == hashes[order][:-1]
    # Equal ids have equal hashes; only rows that share one are compared as texts.
    candidates = np.sort(order[np.append(same, False) | np.append(False, same)])
    mask = np.zeros(len(ids), dtype=bool)
    mask[candidates] = ids.iloc[candidates].duplicated()
    return mask


def rows_of(ids: pd.Series, among: pd.Series) -> np.ndarray:
    """Return the row of each id among ids that differ from each other (id,); −1 for an unknown one."""
    ids, among = ids.astype(str), among.astype(str)
    known = _hashes(among)
    order = np.argsort(known)
    known = known[order]
    if (known[1:] == known[:-1]).any():
        return _by_text(ids, among)
    hashes = _hashes(ids)
    at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    rows = np.where(known[at] == hashes, order[at], -1)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        # An unknown id may have the hash of a known one.
        rows[part][ids.iloc[part].array != among.take(rows[part]).array] = -1
    return rows


def _by_text(ids: pd.Series, among: pd.Series) -> np.ndarray:
    texts, values = (pa.array(column, type=pa.large_string(), from_pandas=True) for column in (ids, among))
    return pc.index_in(texts, value_set=values).fill_null(-1).to_numpy(zero_copy_only=False)


def _hashes(ids: pd.Series) -> np.ndarray:
    hashes = np.empty(len(ids), dtype=np.uint64)
    for start in range(0, len(ids), _CHUNK):
        # One chunk's texts at a time are objects.
        texts: Any = ids.iloc[start : start + _CHUNK].to_numpy(dtype=object)
        hashes[start : start + _CHUNK] = pd.util.hash_array(texts, categorize=False)
    return hashes
