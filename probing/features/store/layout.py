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


@dataclass(frozen=True)
class Form:
    """How an array lies on disk; ``shards`` is None where a chunk is a file."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: Any
    dimensions: tuple[str, ...]
    shards: tuple[int, ...] | None = None


def forms(arrays: Sequence[ArraySpec], *, items: int, sigmas: int, num_blocks: int, run_length: int) -> dict[str, Form]:
    """Lay out every array of a store of so many items and noise levels, by name."""
    run = run_length
    found = {
        "item_id": Form((items,), (run,), str, ("item",)),
        "prompt_id": Form((items,), (run,), str, ("item",)),
        "prompt_digest": Form((items, 16), (run, 16), "uint8", ("item", "byte")),
        "written": Form((items,), (run,), "bool", ("item",)),
        "sigma": Form((sigmas,), (_SIGMAS_A_CHUNK,), "float64", ("sigma",)),
    }
    for array in (*arrays, *COLUMNS):
        names: tuple[str, ...] = ("byte",) if array in COLUMNS else ("token", "channel")
        inner = names[-len(array.shape) :] if array.shape else ()
        if array.blocks is None:
            found[array.name] = Form((items, *array.shape), (run, *array.shape), array.dtype, ("item", *inner))
            continue
        blocks = len(array.blocks)
        found[array.name] = Form(
            (items, sigmas, blocks, *array.shape),
            (run, 1, 1, *array.shape),
            array.dtype,
            ("item", "sigma", "block", *inner),
            (run, 1, blocks, *array.shape),
        )
    for stream, have in blocks_by_stream(arrays).items():
        count = (len(have),)
        found[f"features/{stream}/block"] = Form(count, count, "int64", ("block",))
        found[f"features/{stream}/depth"] = Form(count, count, "float64", ("block",))
    return found


def create_arrays(
    group: zarr.Group, arrays: Sequence[ArraySpec], *, items: int, sigmas: int, num_blocks: int, run_length: int
) -> None:
    """Create the arrays that a group lacks, and bring those that it has to this many items and noise levels."""
    for array in arrays:
        folder = ""
        for name in array.name.split("/")[:-1]:
            folder = f"{folder}/{name}".lstrip("/")
            group.require_group(folder)
    laid_out = forms(arrays, items=items, sigmas=sigmas, num_blocks=num_blocks, run_length=run_length)
    for name, form in laid_out.items():
        if name in group:
            there = group[name]
            assert isinstance(there, zarr.Array)
            if there.shape != form.shape:
                there.resize(form.shape)
            continue
        made = group.create_array(
            name,
            shape=form.shape,
            chunks=form.chunks,
            shards=form.shards,
            dtype=form.dtype,
            # Features hardly compress. A checksum finds a damaged chunk.
            compressors=[ZstdCodec(), Crc32cCodec()] if form.dtype is str else [Crc32cCodec()],
            fill_value=_fill(form.dtype),
            dimension_names=list(form.dimensions),
        )
        if name.endswith(("/block", "/depth")):
            blocks = np.asarray(blocks_by_stream(arrays)[name.split("/")[1]], dtype=np.int64)
            made[...] = blocks if name.endswith("/block") else (blocks + 1) / num_blocks


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


def _fill(dtype: Any) -> Any:
    """Return a fill value that is never data, where the type has one."""
    if dtype is str:
        return ""
    kind = np.dtype(dtype).kind
    return float("nan") if kind == "f" else -1 if kind == "i" else 0 if kind == "u" else False
