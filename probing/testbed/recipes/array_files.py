"""Large arrays that a recipe computes once and maps from disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


@contextmanager
def new_array(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """Fill an array on disk; the file gets its name when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npy")
    array = np.lib.format.open_memmap(partial, "w+", dtype, shape)
    yield array
    array.flush()
    os.replace(partial, path)
