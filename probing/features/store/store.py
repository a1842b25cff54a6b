"""Create, grow, write and read a feature store.

Three rules protect its content. The root document and the records of runs have digests, so an edit is found. A run is
written and synced before its record, so a record never names a file that a killed process did not write. All values are
compared with the checksums of their record, so a lost, swapped or damaged file is an error, never another number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.errors import UserError
from probing.features.store.arrays import REPAIR, StoredArrays
from probing.features.store.documents import digest_of, read_document
from probing.features.store.growth import create, digests_of, grow, items_digest, sync_file
from probing.features.store.layout import COLUMNS, RUNS, SCHEMA, ArraySpec, blocks_by_stream, from_json, to_json
from probing.features.store.pairs_table import read_legacy_pairs, read_pairs, write_pairs
from probing.features.store.records import (
    RunRecord,
    checksum,
    checksums_of,
    file_checksum,
    read_record,
    summary,
    write_record,
)
from probing.files import sentences_for_disk_errors
from probing.paths import AnyPath, is_remote, path_of, reached

_READERS = 16
"""Records that are read from a URL at once."""
Part = tuple[str, int]
"""An array's name and the position of a noise level (0 for arrays without)."""


class FeatureStore:
    """Features of items in one backbone; returned by :meth:`create` and :meth:`open`.

    Attributes:
        path: Its folder.
        attributes: Attributes of the root document: settings, and descriptions of model and data.
        specs: Arrays of features and latents.
        sigmas: Noise levels, in the order in which they were added.
        item_ids: (item,) ids, in the order in which they were added.
        prompt_ids: (item,) prompt group of each.
        prompt_digests: (item, 16) digests of the words of each item.
    """

    def __init__(self, path: AnyPath, attributes: dict[str, Any]) -> None:
        self.path = path
        self.attributes = attributes
        self.schema = int(attributes["schema"])
        self.specs = from_json(attributes["arrays"])
        self.sigmas = [float(sigma) for sigma in attributes["sigmas"]]
        self._arrays = StoredArrays(path, attributes, self.specs)
        self.item_ids, self.prompt_ids = self._arrays.item_ids, self._arrays.prompt_ids
        self.prompt_digests = self._arrays.prompt_digests

    @classmethod
    def open(cls, path: str | AnyPath) -> FeatureStore:
        """Open a store.

        Raises:
            UserError: There is none, it is of a newer schema, or its documents or coordinates are damaged.
        """
        path = path_of(path)
        with reached(path):
            is_there = path.is_dir()
        if not is_there:
            raise UserError(f"There is no feature store at {path}; python -m probing.extract creates one.")
        if not (path / "zarr.json").exists() and not (path / RUNS).exists():
            raise UserError(f"{path} is no feature store: it has no zarr.json; give another path.")
        attributes = read_document(path)
        schema = attributes.get("schema")
        if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
            raise UserError(f"{path} is a Zarr group but no feature store of this project; give another path.")
        if schema > SCHEMA:
            raise UserError(
                f"{path} has schema {schema} and this version reads up to {SCHEMA}; upgrade the package to read it."
            )
        try:
            return cls(path, attributes)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise UserError(
                f"The attributes of {path} were edited ({type(error).__name__}: {error}); {REPAIR} restores them."
            ) from error

    @classmethod
    def create(
        cls,
        path: str | AnyPath,
        *,
        arrays: Sequence[ArraySpec],
        items: pd.DataFrame,
        sigmas: Sequence[float],
        num_blocks: int,
        run_length: int,
        settings: Mapping[str, Any],
        provenance: Mapping[str, Any],
        extents: Sequence[int] = (),
    ) -> FeatureStore:
        """Create an empty store; if several processes try at once, one of them succeeds.

        Args:
            path: Folder of the store.
            arrays: Its arrays.
            items: ``item_id``, ``prompt_id``, and ``prompt`` (the words for the text encoders) or ``prompt_digest``
                (of the words), in order.
            sigmas: Noise levels.
            num_blocks: Number of blocks of the backbone.
            run_length: Items written at once.
            settings: All other settings that change values, as JSON; compared when a store is continued.
            provenance: Versions and the like; stored, not compared.
            extents: Numbers of items that no batch crosses.

        Raises:
            FileExistsError: The path is in use.
            UserError: The disk is full or cannot be written.
        """
        path = path_of(path)
        identity = {
            "settings": dict(settings),
            "sigmas": [float(sigma) for sigma in sigmas],
            "arrays": to_json(arrays),
            "items": items_digest(items["item_id"], items["prompt_id"], digests_of(items)),
        }
        attributes = {
            **provenance,
            **settings,
            "schema": SCHEMA,
            "identity": digest_of(identity),
            "num_blocks": num_blocks,
            "run_length": run_length,
            "settings": dict(settings),
            "arrays": to_json(arrays),
            "sigmas": [float(sigma) for sigma in sigmas],
            "extents": [int(extent) for extent in extents],
        }
        create(path, attributes, items)
        return cls.open(path)

    def extend(
        self,
        *,
        arrays: Sequence[ArraySpec],
        items: pd.DataFrame,
        sigmas: Sequence[float],
        provenance: Mapping[str, Any],
    ) -> FeatureStore:
        """Add arrays, noise levels and items; existing ones keep their positions.

        Args:
            arrays: All arrays, existing ones first.
            items: The new items, as for :meth:`create`.
            sigmas: All noise levels, existing ones first.
            provenance: Replaces the stored provenance.

        Returns:
            The store, opened again.
        """
        assert list(sigmas)[: len(self.sigmas)] == self.sigmas, "new noise levels follow the existing ones"
        attributes = {**self.attributes, **provenance, "arrays": to_json(arrays), "sigmas": list(map(float, sigmas))}
        with self._writing():
            before = (self.item_ids.tolist(), self.prompt_ids.tolist(), self.prompt_digests)
            grow(self.path, attributes, items, start=len(self.item_ids), before=before)
        grown = FeatureStore.open(self.path)
        for run in grown.records:
            grown.mark_written(run)
        return grown

    @property
    def num_blocks(self) -> int:
        """Number of blocks of the backbone."""
        return int(self.attributes["num_blocks"])

    @property
    def run_length(self) -> int:
        """Items of a run."""
        return int(self.attributes["run_length"])

    @property
    def runs(self) -> range:
        """Numbers of all runs."""
        return range(-(-len(self.item_ids) // self.run_length))

    @property
    def extents(self) -> list[int]:
        """Number of items after the creation and after each addition; batches never cross one of these."""
        return [int(extent) for extent in self.attributes["extents"]]

    @cached_property
    def records(self) -> dict[int, RunRecord]:
        """Records of runs, by number, where there is one."""
        if is_remote(self.path):
            with ThreadPoolExecutor(_READERS) as pool:
                found = list(pool.map(partial(read_record, self.path), self.runs))
        else:
            found = [read_record(self.path, run) for run in self.runs]
        records = dict(zip(self.runs, found, strict=True))
        return {run: record for run, record in records.items() if record is not None}

    def read_again(self, run: int) -> None:
        """Read the record of a run that another process may have written."""
        record = read_record(self.path, run)
        self.__dict__.pop("digest", None)
        if record is None:
            self.records.pop(run, None)
        else:
            self.records[run] = record

    @cached_property
    def digest(self) -> str:
        """32 hex characters that differ between two stores if any feature, item, picture or setting does."""
        content = {name: self.attributes.get(name) for name in ("settings", "arrays", "sigmas", "num_blocks")}
        if self.schema == 1:
            return digest_of([content, self._legacy_checksums()])
        return digest_of([content, self.attributes["items_digest"], summary(self.records)])

    @property
    def identity(self) -> str:
        """32 hex characters of the new store, unchanged by additions; they link the pairs to the store."""
        return str(self.attributes.get("identity", ""))

    @property
    def written(self) -> np.ndarray:
        """Mask (item,): items whose features are all on disk."""
        if self.schema == 1:
            return self._arrays.read("written").astype(bool)
        mask = np.zeros(len(self.item_ids), dtype=bool)
        for run, record in self.records.items():
            if record.is_whole(self.specs, len(self.sigmas)):
                mask[run * self.run_length : run * self.run_length + record.rows] = True
        return mask

    @property
    def complete(self) -> bool:
        """Whether all features and columns of all items are on disk."""
        if self.schema == 1:
            return bool(self.written.all())
        rows = sum(r.rows for r in self.records.values() if r.is_whole((*self.specs, *COLUMNS), len(self.sigmas)))
        return rows == len(self.item_ids)

    @property
    def blocks(self) -> list[int]:
        """Blocks of any stream."""
        return sorted({block for array in self.specs for block in array.blocks or ()})

    def blocks_of(self, stream: str) -> list[int]:
        """Return the blocks of a stream."""
        return list(blocks_by_stream(self.specs)[stream])

    def arrays(self) -> list[tuple[str, str]]:
        """Return every (stream, reduction) of features."""
        names = [array.name.split("/") for array in self.specs if array.blocks is not None]
        return [(name[1], name[2]) for name in names]

    def latent_reductions(self) -> list[str]:
        """Return the reductions of the clean latents."""
        return [array.name.split("/")[1] for array in self.specs if array.blocks is None]

    @property
    def pairs_path(self) -> AnyPath:
        """Path of the table of pairs, next to the store: ``STORE.pairs.parquet``."""
        return self.path.with_name(self.path.name + ".pairs.parquet")

    def read_pairs(self) -> pd.DataFrame:
        """Read the table of pairs.

        Raises:
            UserError: It is missing or damaged, or belongs to another store.
        """
        if self.schema > 1:
            return read_pairs(self.pairs_path, self.identity)
        pairs = read_legacy_pairs(self.path, self.item_ids)
        if pairs is None:
            raise UserError(f"There are no pairs next to {self.path}, which has schema 1; extract it again.")
        return pairs

    def write_pairs(self, pairs: pd.DataFrame) -> bool:
        """Write the table of pairs, unless it is already the same; return whether it was written."""
        return write_pairs(self.pairs_path, pairs, self.identity)

    def read(self, stream: str, reduction: str, sigma: float, block: int) -> Float[np.ndarray, "item ..."]:
        """Read one block's features of all items at one noise level, as float32; NaN for items that are not written.

        Raises:
            UserError: The store has no such stream, reduction, sigma or block, or a file is lost, swapped or damaged.
        """
        name, where = self._where(stream, reduction, sigma, block)
        values = self._arrays.read(name, (self._rows, *where))
        return self._checked(name, values, *where).astype(np.float32)

    def read_by_run(
        self, stream: str, reduction: str, sigma: float, block: int
    ) -> Iterator[Float[np.ndarray, "row ..."]]:
        """Read run by run what :meth:`read` reads whole."""
        name, where = self._where(stream, reduction, sigma, block)
        for run in self.runs:
            values = np.array(self._arrays.read(name, (self.rows_of_run(run), *where)))
            if self.schema > 1:
                self._check_run(name, run, values, *where)
            yield values.astype(np.float32)

    def _where(self, stream: str, reduction: str, sigma: float, block: int) -> tuple[str, tuple[int, int]]:
        """Return the array of a site, and the positions of its noise level and block."""
        if (stream, reduction) not in self.arrays():
            have = ", ".join("/".join(pair) for pair in self.arrays())
            raise UserError(f"{self.path} has no features/{stream}/{reduction}; it has {have}.")
        if sigma not in self.sigmas:
            raise UserError(f"{self.path} has no sigma {sigma:g}; it has {', '.join(f'{s:g}' for s in self.sigmas)}.")
        blocks = self.blocks_of(stream)
        if block not in blocks:
            raise UserError(f"{self.path} has no block {block} of the {stream} stream; it has {blocks}.")
        return f"features/{stream}/{reduction}", (self.sigmas.index(sigma), blocks.index(block))

    def read_latents(self, reduction: str) -> Float[np.ndarray, "item ..."]:
        """Read the pooled clean latents of all items, as float32."""
        name = f"latents/{reduction}"
        return self._checked(name, self._arrays.read(name, self._rows), 0, 0).astype(np.float32)

    def read_column(self, name: str) -> np.ndarray:
        """Read a column of items, one of :data:`~probing.features.store.layout.COLUMNS`."""
        return self._checked(name, self._arrays.read(name, self._rows), 0, 0)

    @cached_property
    def item_inputs(self) -> dict[str, np.ndarray] | None:
        """Inputs of each item's features, (item, …): ``prompt_id``, ``prompt_digest`` (of the words) and
        ``image_digest`` (of the picture); None for a store of schema 1, which lacks them.
        """
        if self.schema == 1 or self.attributes["settings"].get("upgraded_from"):
            return None
        digests = {"prompt_digest": self.prompt_digests, "image_digest": self.read_column("image_digest")}
        return {"prompt_id": self.prompt_ids, **digests}

    def rows_of_run(self, run: int) -> slice:
        """Return the rows of a run's items."""
        return slice(run * self.run_length, min((run + 1) * self.run_length, len(self.item_ids)))

    def read_part(self, part: Part, run: int, rows: int) -> np.ndarray:
        """Read one array of a run at one noise level in its stored dtype, (row, [block,] …) for ``rows`` items.

        Raises:
            UserError: A file is lost, swapped or damaged.
        """
        array = self.spec(part[0])
        items = slice(run * self.run_length, run * self.run_length + rows)
        values = self._arrays.read(part[0], items if array.blocks is None else (items, part[1]))
        expected = self.records[run].of(*part)
        if expected is None or checksums_of(values, array) != expected:
            raise self._damaged(part[0], run, part[1])
        return values

    def spec(self, name: str) -> ArraySpec:
        """Return the spec of an array."""
        return next(array for array in (*self.specs, *COLUMNS) if array.name == name)

    def write_run(self, run: int, values: Mapping[Part, np.ndarray]) -> None:
        """Write parts of a run, sync them, and then update its record.

        Args:
            run: Its number; its first item is ``run · run_length``.
            values: For some arrays and noise levels, (row, [block,] …) of all items of the run.

        Raises:
            UserError: The disk is full or cannot be written; earlier records stay valid.
            ValueError: An array of a wrong shape or type.
        """
        items = self.rows_of_run(run)
        rows = items.stop - items.start
        before = self.records.get(run, RunRecord())
        # After an addition of items to the run, its earlier parts have too few rows.
        checksums = before.checksums if before.rows == rows else {}
        for part, value in values.items():
            array = self.spec(part[0])
            expected = (rows, *(() if array.blocks is None else (len(array.blocks),)), *array.shape)
            if value.shape != expected or str(value.dtype) != array.dtype:
                raise ValueError(
                    f"{part[0]} of run {run} is {array.dtype} {expected}, got {value.dtype} {value.shape}."
                )
        record = RunRecord(rows, dict(checksums), dict(before.files), self.ids_of(items))
        with self._writing():
            for (name, sigma), value in values.items():
                array = self.spec(name)
                self._arrays.write(name, items if array.blocks is None else (items, sigma), value)
                file = array.file(run, sigma)
                sync_file(self.path / file)
                record.files[file] = file_checksum(self.path / file)
                record = record.with_part(name, sigma, checksums_of(value, array))
            write_record(self.path, run, record)
        self.records[run] = record
        self.__dict__.pop("digest", None)
        self.mark_written(run)

    def mark_written(self, run: int) -> None:
        """Update the array ``written``, a mask for readers without this package."""
        items = self.rows_of_run(run)
        record = self.records.get(run, RunRecord())
        mask = np.zeros(items.stop - items.start, dtype=bool)
        mask[: record.rows] = record.is_whole(self.specs, len(self.sigmas))
        with self._writing():
            self._arrays.write("written", items, mask)
            sync_file(self.path / "written" / "c" / str(run))

    def difference(self, settings: Mapping[str, Any]) -> list[str]:
        """List the settings in which a request differs from the store."""
        stored = self.attributes["settings"]
        return [
            f"{key} was {stored.get(key)!r} and is now {settings.get(key)!r}"
            for key in sorted({*stored, *settings})
            if _as_json(stored.get(key)) != _as_json(settings.get(key))
        ]

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with sentences_for_disk_errors(self.path):
            yield

    @property
    def _rows(self) -> slice:
        return slice(0, len(self.item_ids))

    def ids_of(self, items: slice) -> dict[str, list[str]]:
        """Return ids, prompt groups and hex digests of words of these items, as a record has them."""
        return {
            "item_id": self.item_ids[items].tolist(),
            "prompt_id": self.prompt_ids[items].tolist(),
            "prompt_digest": [bytes(digest).hex() for digest in self.prompt_digests[items]],
        }

    def read_raw(self, name: str) -> np.ndarray:
        """Read an array without comparing it with the records; Zarr compares each chunk with its checksum."""
        return self._arrays.read(name)

    def _checked(self, name: str, values: np.ndarray, sigma: int, block: int) -> np.ndarray:
        """Compare values of all items with the records; values without a record become fill values."""
        if self.schema == 1:
            return values
        values = values if values.flags.writeable else values.copy()
        for run in self.runs:
            self._check_run(name, run, values[self.rows_of_run(run)], sigma, block)
        return values

    def _check_run(self, name: str, run: int, values: np.ndarray, sigma: int, block: int) -> None:
        """Compare values of a run with its record; rows without a record become fill values, in place."""
        record = self.records.get(run)
        sums = None if record is None else record.of(name, sigma)
        rows = 0 if record is None or sums is None else record.rows
        if sums is not None and checksum(values[:rows]) != sums[block]:
            raise self._damaged(name, run, sigma, block)
        if rows < len(values):
            values[rows:] = np.nan if values.dtype.kind == "f" else 0

    def _damaged(self, name: str, run: int, sigma: int, block: int | None = None) -> UserError:
        where = f"{self.path}/{self.spec(name).file(run, sigma)}"
        index = "" if block is None or self.spec(name).blocks is None else f", block {self.spec(name).blocks[block]}"  # type: ignore[index]
        return UserError(
            f"{where} (run {run}{index}) does not have the written values: it was lost, swapped or damaged; "
            f"{REPAIR} {self.path} computes it again."
        )

    def _legacy_checksums(self) -> dict[str, list[int]]:
        """Checksum every file of a store of schema 1, which has no records."""
        files = sorted(file for file in self.path.rglob("*") if file.is_file() and file.name != "zarr.json")
        return {str(file.relative_to(self.path)): list(file_checksum(file)) for file in files}


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
