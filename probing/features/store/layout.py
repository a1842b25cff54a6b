"""Layout of a store: its arrays, how they are cut into files, and the Zarr documents that describe them.

::

    features/<stream>/<reduction>   (item, sigma, block, [token,] channel)
    latents/<reduction>             (item, [cell,] channel): the clean VAE latents, pooled
    item_id, prompt_id              (item,) strings
    prompt_digest                   (item, byte): BLAKE2b of the words that the text encoders get
    image_digest, image_stamp       (item, byte): the picture's pixels; its file's size and times
    prompt_clip_tokens              (item,) CLIP tokens of the prompt before it was cut
    sigma, features/<stream>/block  coordinates; depth next to block
    written                         (item,) True once all features of an item are on disk
    runs/<number>                   a group whose attributes are the record of a run: checksums of what was written

A run is a range of items written together. One file has one run of one array at one noise level, with one chunk a
block: reading a block reads its bytes only, and adding a noise level changes no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from probing.paths import AnyPath

SCHEMA = 2
RUNS = "runs"
_SIGMAS_A_CHUNK = 64


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store.

    Attributes:
        name: ``features/<stream>/<reduction>``, ``latents/<reduction>``, or a column of items.
        blocks: Blocks along its block axis; None for an array without blocks and sigmas.
        shape: Shape of one entry: (channel,), (token, channel) or ().
        dtype: NumPy's name of the type.
    """

    name: str
    blocks: tuple[int, ...] | None
    shape: tuple[int, ...]
    dtype: str

    def bytes_per_item(self, sigmas: int) -> int:
        """Return the bytes of one item at this many noise levels."""
        vectors = 1 if self.blocks is None else sigmas * len(self.blocks)
        return vectors * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def file(self, run: int, sigma: int) -> str:
        """Return the path within the store of the file of a run at the noise level with this position."""
        positions = [run] if self.blocks is None else [run, sigma, 0]
        return "/".join([self.name, "c", *map(str, positions), *("0" for _ in self.shape)])

    def sigmas(self, count: int) -> range:
        """Return the positions of the noise levels that have a file."""
        return range(1 if self.blocks is None else count)


COLUMNS = (
    ArraySpec("image_digest", None, (16,), "uint8"),
    ArraySpec("image_stamp", None, (16,), "uint8"),
    ArraySpec("prompt_clip_tokens", None, (), "int32"),
)
"""Columns of items, written with their features."""


def to_json(arrays: Sequence[ArraySpec]) -> list[list[Any]]:
    """Return the specs as JSON values."""
    return [[a.name, None if a.blocks is None else list(a.blocks), list(a.shape), a.dtype] for a in arrays]


def from_json(arrays: list[list[Any]] | dict[str, list[Any]]) -> tuple[ArraySpec, ...]:
    """Return the specs of JSON values; schema 1 has a dictionary by name, with an empty list for no blocks."""
    rows = [[name, *row] for name, row in arrays.items()] if isinstance(arrays, dict) else arrays
    return tuple(
        ArraySpec(name, tuple(blocks) if blocks else None, tuple(shape), dtype) for name, blocks, shape, dtype in rows
    )


@dataclass(frozen=True)
class Form:
    """Shape and chunks of an array on disk; ``shards`` is None if each chunk is a file."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: Any
    dimensions: tuple[str, ...]
    shards: tuple[int, ...] | None = None


def forms(attributes: Mapping[str, Any], items: int) -> dict[str, Form]:
    """Return the form of every array, by name, of a store with these attributes and this many items."""
    arrays, sigmas, run = from_json(attributes["arrays"]), len(attributes["sigmas"]), int(attributes["run_length"])
    by_name = {
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
            by_name[array.name] = Form((items, *array.shape), (run, *array.shape), array.dtype, ("item", *inner))
            continue
        blocks = len(array.blocks)
        by_name[array.name] = Form(
            (items, sigmas, blocks, *array.shape),
            (run, 1, 1, *array.shape),
            array.dtype,
            ("item", "sigma", "block", *inner),
            (run, 1, blocks, *array.shape),
        )
    for stream, blocks_of_stream in blocks_by_stream(arrays).items():
        count = (len(blocks_of_stream),)
        by_name[f"features/{stream}/block"] = Form(count, count, "int64", ("block",))
        by_name[f"features/{stream}/depth"] = Form(count, count, "float64", ("block",))
    return by_name


def create_arrays(group: zarr.Group, attributes: Mapping[str, Any], items: int) -> None:
    """Create the missing arrays of a store with these attributes, and resize the others to this many items."""
    arrays = from_json(attributes["arrays"])
    for spec in arrays:
        folder = ""
        for name in spec.name.split("/")[:-1]:
            folder = f"{folder}/{name}".lstrip("/")
            group.require_group(folder)
    for name, form in forms(attributes, items).items():
        if name in group:
            array = group[name]
            assert isinstance(array, zarr.Array)
            if array.shape != form.shape:
                array.resize(form.shape)
            continue
        array = group.create_array(
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
            array[...] = blocks if name.endswith("/block") else (blocks + 1) / int(attributes["num_blocks"])


def blocks_by_stream(arrays: Sequence[ArraySpec]) -> dict[str, tuple[int, ...]]:
    """Return the blocks of each stream."""
    return {a.name.split("/")[1]: a.blocks for a in arrays if a.blocks is not None}


def metadata_files(path: AnyPath) -> list[str]:
    """List the documents of a store's arrays and inner groups, without the root and the records."""
    names = []
    for document in sorted(path.rglob("zarr.json")):
        parts = document.relative_to(path).parts
        if len(parts) > 1 and parts[0] != RUNS:
            names.append("/".join(parts))
    return names


def _fill(dtype: Any) -> Any:
    """Return a fill value that is never data, if the type has one."""
    if dtype is str:
        return ""
    kind = np.dtype(dtype).kind
    return float("nan") if kind == "f" else -1 if kind == "i" else 0 if kind == "u" else False
