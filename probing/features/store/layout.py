"""Where a store keeps what: its arrays, how they are cut into files, and the Zarr documents that describe them.

::

    features/<stream>/<reduction>   (item, sigma, block, [token,] channel)
    latents/<reduction>             (item, [cell,] channel): the clean VAE latents, pooled
    item_id, prompt_id              (item,) strings
    prompt_digest                   (item, byte): BLAKE2b of the words given to the text encoders
    image_digest, image_stamp       (item, byte): the picture's pixels; its file's size and times
    prompt_clip_tokens              (item,) CLIP tokens of the prompt before it was cut
    sigma, features/<stream>/block  coordinates; depth beside block
    written                         (item,) True once all features of an item are on disk
    runs/<number>                   a group whose attributes are the record of a run: checksums of what was written

A run is a stretch of items written together. One file holds one run of one array at one noise level; in it a chunk is
one block, so reading a block touches its own bytes, and a noise level is added without touching a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

SCHEMA = 2
RUNS = "runs"
_SIGMAS_A_CHUNK = 64


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store.

    Attributes:
        name: ``features/<stream>/<reduction>``, ``latents/<reduction>``, or a column of items.
        blocks: Blocks along its block axis; None for what has neither block nor sigma.
        shape: What one entry is: (channel,), (token, channel) or ().
        dtype: NumPy's name of it.
    """

    name: str
    blocks: tuple[int, ...] | None
    shape: tuple[int, ...]
    dtype: str

    def bytes_per_item(self, sigmas: int) -> int:
        vectors = 1 if self.blocks is None else sigmas * len(self.blocks)
        return vectors * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def file(self, run: int, sigma: int) -> str:
        """Return the path, within the store, of a run at the noise level with this position."""
        positions = [run] if self.blocks is None else [run, sigma, 0]
        return "/".join([self.name, "c", *map(str, positions), *("0" for _ in self.shape)])

    def sigmas(self, count: int) -> range:
        """Return the positions of the noise levels that it has a file for."""
        return range(1 if self.blocks is None else count)


COLUMNS = (
    ArraySpec("image_digest", None, (16,), "uint8"),
    ArraySpec("image_stamp", None, (16,), "uint8"),
    ArraySpec("prompt_clip_tokens", None, (), "int32"),
)
"""What is noted of each item when it is computed."""


def to_json(arrays: Sequence[ArraySpec]) -> list[list]:
    return [[a.name, None if a.blocks is None else list(a.blocks), list(a.shape), a.dtype] for a in arrays]


def from_json(arrays: list[list] | dict[str, list]) -> tuple[ArraySpec, ...]:
    """Rebuild the specs; schema 1 wrote them by name, and no blocks as an empty list."""
    rows = [[name, *row] for name, row in arrays.items()] if isinstance(arrays, dict) else arrays
    return tuple(
        ArraySpec(name, tuple(blocks) if blocks else None, tuple(shape), dtype) for name, blocks, shape, dtype in rows
    )


def create_arrays(
    group: zarr.Group, arrays: Sequence[ArraySpec], *, items: int, sigmas: int, num_blocks: int, run_length: int
) -> None:
    """Create the arrays that a group lacks, and grow those that it has, to this many items and noise levels."""
    for array in arrays:
        folder = ""
        for name in array.name.split("/")[:-1]:
            folder = f"{folder}/{name}".lstrip("/")
            group.require_group(folder)
    for name in ("item_id", "prompt_id"):
        _create(group, name, (items,), (run_length,), str, ["item"], compress=True)
    _create(group, "prompt_digest", (items, 16), (run_length, 16), "uint8", ["item", "byte"])
    _create(group, "written", (items,), (run_length,), "bool", ["item"])
    _create(group, "sigma", (sigmas,), (_SIGMAS_A_CHUNK,), "float64", ["sigma"])
    for array in (*arrays, *COLUMNS):
        inner = {0: [], 1: ["channel" if array not in COLUMNS else "byte"], 2: ["token", "channel"]}[len(array.shape)]
        if array.blocks is None:
            _create(group, array.name, (items, *array.shape), (run_length, *array.shape), array.dtype,
                    ["item", *inner])  # fmt: skip
        else:
            blocks = len(array.blocks)
            _create(
                group,
                array.name,
                (items, sigmas, blocks, *array.shape),
                (run_length, 1, 1, *array.shape),
                array.dtype,
                ["item", "sigma", "block", *inner],
                shards=(run_length, 1, blocks, *array.shape),
            )
    for stream, have in blocks_by_stream(arrays).items():
        folder = group[f"features/{stream}"]
        assert isinstance(folder, zarr.Group)
        values = np.asarray(have, dtype=np.int64)
        for name, coordinate in (("block", values), ("depth", (values + 1) / num_blocks)):
            if name not in folder:
                _create(folder, name, values.shape, values.shape, str(coordinate.dtype), ["block"])
                made = folder[name]
                assert isinstance(made, zarr.Array)
                made[...] = coordinate


def blocks_by_stream(arrays: Sequence[ArraySpec]) -> dict[str, tuple[int, ...]]:
    return {a.name.split("/")[1]: a.blocks for a in arrays if a.blocks is not None}


def metadata_files(path: Path) -> list[str]:
    """List the documents of a store's arrays and inner groups, without the sealed ones."""
    found = []
    for document in sorted(path.rglob("zarr.json")):
        parts = document.relative_to(path).parts
        # A chunk's folder is named c; it holds no documents.
        if len(parts) > 1 and parts[0] != RUNS:
            found.append("/".join(parts))
    return found


def _create(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: Any,
    dimensions: list[str],
    *,
    shards: tuple[int, ...] | None = None,
    compress: bool = False,
) -> None:
    if name in group:
        array = group[name]
        assert isinstance(array, zarr.Array)
        if array.shape != shape:
            array.resize(shape)
        return
    group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        shards=shards,
        dtype=dtype,
        # Features hardly compress. A checksum finds a damaged chunk.
        compressors=[ZstdCodec(), Crc32cCodec()] if compress else [Crc32cCodec()],
        fill_value=_fill(dtype),
        dimension_names=dimensions,
    )


def _fill(dtype: Any) -> Any:
    """Return a fill value that is never data, where the type has one."""
    if dtype is str:
        return ""
    kind = np.dtype(dtype).kind
    return float("nan") if kind == "f" else -1 if kind == "i" else 0 if kind == "u" else False
