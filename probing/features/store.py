"""The feature store: a Zarr v3 group that says what it holds and survives being killed.

Layout, readable by ``zarr.open_group`` and ``xarray.open_zarr`` alone::

    features/<stream>/<reduction>   (item, sigma, block, [token,] channel)
    latents/<reduction>             (item, [cell,] channel): the clean VAE latents, pooled
    item_id, prompt_id              (item,) strings
    sigma, <stream>_block           coordinates
    written                         (item,) True once an item's features are on disk

Items are written in runs. A run is one shard of every array, written once and synced; then ``written`` is set
for it. Inside a shard a chunk is one (sigma, block) of the run, so reading one block touches only its bytes.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float
from zarr.codecs import Crc32cCodec

from probing.errors import UserError

SCHEMA = 1


@dataclass(frozen=True)
class ArraySpec:
    """One array of features.

    Attributes:
        name: ``features/<stream>/<reduction>`` or ``latents/<reduction>``.
        blocks: Blocks along its block axis; None for latents, which have neither block nor sigma.
        shape: What one vector is: (channel,) or (token, channel).
        dtype: ``float32`` or ``float16``.
    """

    name: str
    blocks: tuple[int, ...] | None
    shape: tuple[int, ...]
    dtype: str

    def bytes_per_item(self, sigmas: int) -> int:
        vectors = 1 if self.blocks is None else sigmas * len(self.blocks)
        return vectors * int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class FeatureStore:
    """Features of the items of one data set in one backbone. Make one with :meth:`create` or :meth:`open`."""

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self.path = path
        self._group = group
        self.attributes: dict[str, Any] = dict(group.attrs)
        self.sigmas: list[float] = [float(sigma) for sigma in self._read("sigma")]
        self.item_ids: np.ndarray = self._read("item_id").astype(object)
        self.prompt_ids: np.ndarray = self._read("prompt_id").astype(object)

    @classmethod
    def open(cls, path: str | Path, *, writable: bool = False) -> FeatureStore:
        """Open a store, for reading unless told otherwise.

        Raises:
            UserError: There is no store, or one of a newer schema.
        """
        path = Path(path)
        if not path.is_dir():
            raise UserError(f"There is no feature store at {path}; python -m probing.extract makes one.")
        try:
            group = zarr.open_group(path, mode="r+" if writable else "r")
        except (FileNotFoundError, ValueError, KeyError) as error:
            raise UserError(f"{path} is no feature store ({error}); give --output another path.") from None
        schema = group.attrs.get("schema")
        if not isinstance(schema, int):
            raise UserError(f"{path} is a Zarr group but no feature store of this project; give another path.")
        if schema > SCHEMA:
            raise UserError(
                f"{path} has schema {schema} and this version reads up to {SCHEMA}; upgrade the package to read it."
            )
        return cls(path, group)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        arrays: Sequence[ArraySpec],
        item_ids: Sequence[str],
        prompt_ids: Sequence[str],
        sigmas: Sequence[float],
        num_blocks: int,
        run_length: int,
        settings: Mapping[str, Any],
        provenance: Mapping[str, Any],
    ) -> FeatureStore:
        """Make an empty store, or reopen one that was made with the very same settings.

        Args:
            path: Folder of the store.
            arrays: What it will hold.
            item_ids: Every item, in the order of the arrays' first axis.
            prompt_ids: Prompt group of each.
            sigmas: Noise levels.
            num_blocks: Of the backbone.
            run_length: Items written at once.
            settings: Everything that decides the values; compared when a store is reopened.
            provenance: Versions and the like; kept, not compared.

        Raises:
            UserError: A store with other settings lies there; the message shows the difference.
        """
        path = Path(path)
        settings = {
            **settings,
            "sigmas": [float(sigma) for sigma in sigmas],
            "run_length": run_length,
            "arrays": {a.name: [list(a.blocks or []), list(a.shape), a.dtype] for a in arrays},
        }
        if path.exists() and any(path.iterdir()):
            store = cls.open(path, writable=True)
            store._check_same(settings, item_ids)
            for leftover in path.rglob("*.partial"):
                leftover.unlink()
            return store
        partial = path.with_name(path.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        group = zarr.open_group(partial, mode="w", zarr_format=3)
        items = len(item_ids)
        _coordinate(group, "item_id", np.asarray(item_ids, dtype=object), "item")
        _coordinate(group, "prompt_id", np.asarray(prompt_ids, dtype=object), "item")
        _coordinate(group, "sigma", np.asarray(sigmas, dtype=np.float64), "sigma")
        group.create_array(
            "written", shape=(items,), chunks=(run_length,), dtype="bool", fill_value=False, dimension_names=["item"]
        )
        for array in arrays:
            _create(group, array, items, len(sigmas), run_length)
        for stream, blocks in {a.name.split("/")[1]: a.blocks for a in arrays if a.blocks is not None}.items():
            depths = (np.asarray(blocks) + 1) / num_blocks
            _coordinate(group[f"features/{stream}"], "block", np.asarray(blocks, dtype=np.int64), "block")
            _coordinate(group[f"features/{stream}"], "depth", depths, "block")
        group.attrs.update({"schema": SCHEMA, "num_blocks": num_blocks, **provenance, "settings": settings, **settings})
        # A store that was half made is never taken for one: it gets its name when it is whole.
        path.parent.mkdir(parents=True, exist_ok=True)
        _sync(partial)
        os.replace(partial, path)
        return cls.open(path, writable=True)

    @property
    def num_blocks(self) -> int:
        """Blocks of the backbone, read or not."""
        return int(self.attributes["num_blocks"])

    @property
    def run_length(self) -> int:
        return int(self.attributes["run_length"])

    @property
    def written(self) -> np.ndarray:
        """Mask (item,): whose features are on disk."""
        return self._read("written").astype(bool)

    @property
    def blocks(self) -> list[int]:
        """Every block that some stream has."""
        return sorted({block for stream, _ in self.arrays() for block in self.blocks_of(stream)})

    def blocks_of(self, stream: str) -> list[int]:
        return [int(block) for block in self._read(f"features/{stream}/block")]

    def arrays(self) -> list[tuple[str, str]]:
        """Name every (stream, reduction) of features."""
        names = [name.split("/") for name in self.attributes["arrays"]]
        return [(name[1], name[2]) for name in names if name[0] == "features"]

    def latent_reductions(self) -> list[str]:
        return [name.split("/")[1] for name in self.attributes["arrays"] if name.startswith("latents/")]

    @property
    def pairs_path(self) -> Path:
        """The table of pairs beside the store."""
        return self.path.with_suffix(".pairs.parquet")

    def read(self, stream: str, reduction: str, sigma: float, block: int) -> Float[np.ndarray, "item ..."]:
        """Read one block's features of all items at one noise level, as float32.

        Raises:
            UserError: The store has no such stream, reduction, sigma or block, or its bytes are damaged.
        """
        if (stream, reduction) not in self.arrays():
            have = ", ".join("/".join(pair) for pair in self.arrays())
            raise UserError(f"{self.path} has no features/{stream}/{reduction}; it has {have}.")
        if sigma not in self.sigmas:
            raise UserError(f"{self.path} has no sigma {sigma:g}; it has {', '.join(f'{s:g}' for s in self.sigmas)}.")
        blocks = self.blocks_of(stream)
        if block not in blocks:
            raise UserError(f"{self.path} has no block {block} of the {stream} stream; it has {blocks}.")
        where = (slice(None), self.sigmas.index(sigma), blocks.index(block))
        return self._read(f"features/{stream}/{reduction}", where).astype(np.float32)

    def read_latents(self, reduction: str) -> Float[np.ndarray, "item ..."]:
        """Read the pooled clean latents of all items, as float32."""
        return self._read(f"latents/{reduction}").astype(np.float32)

    def write_run(self, run: int, values: Mapping[str, np.ndarray]) -> None:
        """Write one run of every array, sync it, and only then mark it as written.

        Args:
            run: Its number; it holds items ``run · run_length`` up to the next.
            values: For every array of the store, the run's part of it.

        Raises:
            UserError: The disk is full; what was marked before stays good.
            ValueError: Arrays are missing or have the wrong shape.
        """
        items = slice(run * self.run_length, min((run + 1) * self.run_length, len(self.item_ids)))
        if set(values) != set(self.attributes["arrays"]):
            raise ValueError(f"A run has the arrays {sorted(self.attributes['arrays'])}, got {sorted(values)}.")
        try:
            for name, value in values.items():
                array = self._array(name)
                expected = (items.stop - items.start, *array.shape[1:])
                if value.shape != expected or value.dtype != array.dtype:
                    raise ValueError(
                        f"{name} of run {run} is {array.dtype} {expected}, got {value.dtype} {value.shape}."
                    )
                array[items] = value
                _sync(self.path / name / "c" / str(run))
            self._array("written")[items] = True
            _sync(self.path / "written")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(
                    f"The disk of {self.path} is full; free some space and give the same command: "
                    f"it continues after the {int(self.written.sum())} items that are safe."
                ) from error
            raise

    def _array(self, name: str) -> zarr.Array:
        array = self._group[name]
        assert isinstance(array, zarr.Array)
        return array

    def _read(self, name: str, where: Any = slice(None)) -> np.ndarray:
        try:
            return np.asarray(self._array(name)[where])
        except (KeyError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{self.path}/{name} is damaged or cut off ({error}); delete the store and extract again."
            ) from error

    def _check_same(self, settings: Mapping[str, Any], item_ids: Sequence[str]) -> None:
        mine = self.attributes["settings"]
        different = [
            f"{key} was {mine.get(key)!r} and is now {settings.get(key)!r}"
            for key in sorted({*mine, *settings})
            if _plain(mine.get(key)) != _plain(settings.get(key))
        ]
        if not different and list(item_ids) != self.item_ids.tolist():
            different = ["the items are others"]
        if different:
            raise UserError(
                f"{self.path} holds features made with other settings: {'; '.join(different)}. "
                f"Give another --output, or delete it."
            )


def _create(group: zarr.Group, array: ArraySpec, items: int, sigmas: int, run_length: int) -> None:
    inner = ["channel"] if len(array.shape) == 1 else ["token", "channel"]
    if array.blocks is None:
        names = ["item"]
        outer: list[int] = []
        whole: list[int] = []
    else:
        names = ["item", "sigma", "block"]
        outer, whole = [1, 1], [sigmas, len(array.blocks)]
    group.create_array(
        array.name,
        shape=(items, *whole, *array.shape),
        chunks=(run_length, *outer, *array.shape),
        shards=(run_length, *whole, *array.shape),
        dtype=array.dtype,
        # Features hardly compress; a checksum tells a damaged chunk.
        compressors=[Crc32cCodec()],
        fill_value=float("nan"),
        dimension_names=[*names, *inner],
    )


def _coordinate(group: Any, name: str, values: np.ndarray, dimension: str) -> None:
    dtype = str if values.dtype == object else values.dtype
    array = group.create_array(name, shape=values.shape, dtype=dtype, dimension_names=[dimension])
    array[...] = values


def to_stored(values: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """Cast float32 values to the dtype of an array, and refuse to lose any to infinity.

    Raises:
        UserError: Values that are not finite, or too large for the dtype.
    """
    if not np.isfinite(values).all():
        raise UserError(f"{name} has values that are not finite; use --compute-dtype float32 or bfloat16.")
    with np.errstate(over="ignore"):
        cast = values.astype(dtype)
    if not np.isfinite(cast).all():
        largest = np.abs(values).max()
        raise UserError(
            f"{name} has values up to {largest:.3g}, too large for {dtype}; store float32, or leave out tokens."
        )
    return cast


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _sync(path: Path) -> None:
    """Force a file, or a folder with all it holds, onto the disk."""
    for folder, _, files in os.walk(path) if path.is_dir() else [(str(path.parent), [], [path.name])]:
        for place in [*(os.path.join(folder, file) for file in files), folder]:
            descriptor = os.open(place, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
