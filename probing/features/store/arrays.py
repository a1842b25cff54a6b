"""Read and write the arrays of a store on disk, after a comparison with the root document."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from jaxtyping import UInt8

from probing.errors import UserError
from probing.features.store.growth import items_digest, zarr_place
from probing.features.store.layout import ArraySpec, blocks_by_stream, forms
from probing.paths import AnyPath, is_remote

REPAIR = "python -m probing.store repair"
_MOST_ITEMS = 10**9


class StoredArrays:
    """The arrays of one store.

    Attributes:
        item_ids: (item,) ids, compared with the root document.
        prompt_ids: (item,) prompt group of each.
        prompt_digests: (item, 16) digests of the words of each item; zeros for schema 1, which has none.

    Raises:
        UserError: The documents or coordinates are damaged.
    """

    def __init__(self, path: AnyPath, attributes: Mapping[str, Any], specs: Sequence[ArraySpec]) -> None:
        self.path, self._attributes = path, attributes
        self._legacy = attributes["schema"] == 1
        sigmas = [float(sigma) for sigma in attributes["sigmas"]]
        try:
            writes = is_remote(path) or os.access(path, os.W_OK)
            self._group = zarr.open_group(zarr_place(path), mode="r+" if writes else "r")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is no feature store ({error}); give another path.") from None
        self._forms = {} if self._legacy else forms(attributes, int(attributes["extents"][-1]))
        self._read_items()
        coordinates: dict[str, Sequence[float]] = {"sigma": sigmas}
        for stream, blocks in blocks_by_stream(specs).items():
            coordinates[f"features/{stream}/block"] = blocks
        for name, expected in coordinates.items():
            values = self.read(name, slice(0, len(expected))).tolist()
            if values != list(expected):
                raise UserError(
                    f"{path}/{name} is damaged: it has {values}, expected {list(expected)}; "
                    f"{REPAIR} {path} restores it."
                )

    def _read_items(self) -> None:
        """Read ids and digests of words, and compare them with the root document's digest."""
        self.item_ids, self.prompt_ids = (self.read(name).astype(object) for name in ("item_id", "prompt_id"))
        self.prompt_digests: UInt8[np.ndarray, "item byte"]
        if self._legacy:
            self.prompt_digests = np.zeros((len(self.item_ids), 16), np.uint8)
            if len(self.item_ids) != len(self.prompt_ids) or not all(self.item_ids):
                raise UserError(f"The item ids of {self.path} are damaged; extract it again.")
            return
        self.prompt_digests = self.read("prompt_digest")
        if self._attributes["items_digest"] != items_digest(self.item_ids, self.prompt_ids, self.prompt_digests):
            raise UserError(f"The item ids of {self.path} are damaged; {REPAIR} {self.path} restores them.")

    def read(self, name: str, where: Any = None) -> np.ndarray:
        """Read an array, or a part of it, from disk; by default all items, levels or blocks of the store.

        Raises:
            UserError: It is damaged or cut off.
        """
        try:
            array = self._open(name)
            if where is None:
                where = slice(None) if self._legacy else slice(0, self._forms[name].shape[0])
            return np.asarray(array[where])
        # Codecs may raise anything.
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise UserError(
                f"{self.path}/{name} is damaged or cut off ({reason}); {REPAIR} {self.path} computes it again."
            ) from error

    def write(self, name: str, where: Any, values: np.ndarray) -> None:
        """Write a part of an array, fill values too: a missing file must mean a lost file."""
        with zarr.config.set({"array.write_empty_chunks": True}):
            self._open(name)[where] = values

    def _open(self, name: str) -> zarr.Array[Any]:
        """Open an array, and compare its form with the root document: a damaged shape could take all memory."""
        array = self._group[name]
        if not isinstance(array, zarr.Array):
            raise ValueError("it is a group, expected an array")
        if self._legacy:
            if max(array.shape, default=0) > _MOST_ITEMS or max(array.chunks, default=0) > _MOST_ITEMS:
                raise ValueError(f"its shape is {array.shape}")
            return array
        form = self._forms[name]
        # After an interrupted addition an array may be larger.
        fits = len(array.shape) == len(form.shape) and all(
            form.shape[axis] <= size <= form.shape[axis] + _MOST_ITEMS if axis < 2 else size == form.shape[axis]
            for axis, size in enumerate(array.shape)
        )
        other_type = form.dtype is not str and array.dtype != np.dtype(form.dtype)
        if not fits or (array.chunks, array.shards) != (form.chunks, form.shards) or other_type:
            raise ValueError(f"its document has shape {array.shape} of {array.dtype}, expected {form.shape}")
        return array
