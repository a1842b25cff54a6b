"""Create, grow, write and read a feature store.

Three rules keep its content true. The root document and the records of runs are sealed, so an edit is found. A run is
written and synced before its record is, so what a record names is there, whenever the process is killed. Whatever is
read is compared with the checksums of its record, so a lost, swapped or damaged file is an error, never other numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.errors import UserError
from probing.features.store.arrays import REPAIR, StoredArrays
from probing.features.store.growth import create, grow, items_digest, sync_file, words_digest
from probing.features.store.layout import COLUMNS, RUNS, SCHEMA, ArraySpec, blocks_by_stream, from_json, to_json
from probing.features.store.lock import locked
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
from probing.features.store.sealed import digest_of, read_document
from probing.files import sentences_for_disk_errors

Part = tuple[str, int]
"""An array's name, and the position of a noise level (0 for arrays without)."""


class FeatureStore:
    """Features of items in one backbone. Make one with :meth:`create` or :meth:`open`.

    Attributes:
        path: Its folder.
        attributes: Of the root document: settings, and what is known of model and data.
        specs: Arrays of features and latents.
        sigmas: Noise levels, in the order in which they were added.
        item_ids: (item,) ids, in the order in which they were added.
        prompt_ids: (item,) prompt group of each.
        prompt_digests: (item, 16) digests of the words that were given with each item.
    """

    def __init__(self, path: Path, attributes: dict[str, Any]) -> None:
        self.path = path
        self.attributes = attributes
        self.schema = int(attributes["schema"])
        self.specs = from_json(attributes["arrays"])
        self.sigmas = [float(sigma) for sigma in attributes["sigmas"]]
        self._arrays = StoredArrays(path, attributes, self.specs)
        self.item_ids, self.prompt_ids = self._arrays.item_ids, self._arrays.prompt_ids
        self.prompt_digests = self._arrays.prompt_digests

    @classmethod
    def open(cls, path: str | Path) -> FeatureStore:
        """Open a store.

        Raises:
            UserError: There is none, it is of a newer schema, or its documents or coordinates are damaged.
        """
        path = Path(path)
        if not path.is_dir():
            raise UserError(f"There is no feature store at {path}; python -m probing.extract makes one.")
        if not (path / "zarr.json").exists() and not (path / RUNS).exists():
            raise UserError(f"{path} is no feature store, for it has no zarr.json; give another path.")
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
                f"The attributes of {path} were edited ({type(error).__name__}: {error}); {REPAIR} mends them."
            ) from error

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        arrays: Sequence[ArraySpec],
        items: pd.DataFrame,
        sigmas: Sequence[float],
        num_blocks: int,
        run_length: int,
        settings: Mapping[str, Any],
        provenance: Mapping[str, Any],
    ) -> FeatureStore:
        """Make an empty store; of several processes that try at once, one does.

        Args:
            path: Folder of the store.
            arrays: What it will hold.
            items: ``item_id``, ``prompt_id`` and ``prompt`` (the words given to the text encoders), in order.
            sigmas: Noise levels.
            num_blocks: Of the backbone.
            run_length: Items written at once.
            settings: Everything else that decides values, as JSON; compared when a store is continued.
            provenance: Versions and the like; kept, not compared.

        Raises:
            FileExistsError: Something lies there.
            UserError: The disk is full or cannot be written.
        """
        path = Path(path)
        made_as = {
            "settings": dict(settings),
            "sigmas": [float(sigma) for sigma in sigmas],
            "arrays": to_json(arrays),
            "items": items_digest(items["item_id"], items["prompt_id"], words_digest(items["prompt"])),
        }
        attributes = {
            **provenance,
            **settings,
            "schema": SCHEMA,
            "identity": digest_of(made_as),
            "num_blocks": num_blocks,
            "run_length": run_length,
            "settings": dict(settings),
            "arrays": to_json(arrays),
            "sigmas": [float(sigma) for sigma in sigmas],
            "extents": [],
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
        """Make room for more arrays, noise levels and items; what is there keeps its place.

        Args:
            arrays: All arrays, those that are there first.
            items: The further items, as for :meth:`create`.
            sigmas: All noise levels, those that are there first.
            provenance: Replaces what is kept.

        Returns:
            The store, opened again.
        """
        assert list(sigmas)[: len(self.sigmas)] == self.sigmas, "noise levels are added behind those there"
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
        """Blocks of the backbone, read or not."""
        return int(self.attributes["num_blocks"])

    @property
    def run_length(self) -> int:
        return int(self.attributes["run_length"])

    @property
    def runs(self) -> range:
        return range(-(-len(self.item_ids) // self.run_length))

    @property
    def extents(self) -> list[int]:
        """Numbers of items after the creation and after each addition; batches never cross one."""
        return [int(extent) for extent in self.attributes["extents"]]

    @cached_property
    def records(self) -> dict[int, RunRecord]:
        """Records of the runs that have one."""
        found = {run: read_record(self.path, run) for run in self.runs}
        return {run: record for run, record in found.items() if record is not None}

    @cached_property
    def digest(self) -> str:
        """32 hex characters that differ between two stores if any feature, item, picture or setting does."""
        content = {name: self.attributes.get(name) for name in ("settings", "arrays", "sigmas", "num_blocks")}
        if self.schema == 1:
            return digest_of([content, self._legacy_checksums()])
        return digest_of([content, self.attributes["items_digest"], summary(self.records)])

    @property
    def identity(self) -> str:
        """32 hex characters of what the store was made as; additions do not change them. Binds its pairs to it."""
        return str(self.attributes.get("identity", ""))

    @property
    def written(self) -> np.ndarray:
        """Mask (item,): of which items all features are on disk."""
        if self.schema == 1:
            return self._arrays.read("written").astype(bool)
        mask = np.zeros(len(self.item_ids), dtype=bool)
        for run, record in self.records.items():
            if record.is_whole(self.specs, len(self.sigmas)):
                mask[run * self.run_length : run * self.run_length + record.rows] = True
        return mask

    @property
    def complete(self) -> bool:
        """Whether all features of all items, and all that is noted of items, are on disk."""
        if self.schema == 1:
            return bool(self.written.all())
        rows = sum(r.rows for r in self.records.values() if r.is_whole((*self.specs, *COLUMNS), len(self.sigmas)))
        return rows == len(self.item_ids)

    @property
    def blocks(self) -> list[int]:
        """Every block that some stream has."""
        return sorted({block for array in self.specs for block in array.blocks or ()})

    def blocks_of(self, stream: str) -> list[int]:
        return list(blocks_by_stream(self.specs)[stream])

    def arrays(self) -> list[tuple[str, str]]:
        """Name every (stream, reduction) of features."""
        names = [array.name.split("/") for array in self.specs if array.blocks is not None]
        return [(name[1], name[2]) for name in names]

    def latent_reductions(self) -> list[str]:
        return [array.name.split("/")[1] for array in self.specs if array.blocks is None]

    @property
    def pairs_path(self) -> Path:
        """The table of pairs beside the store; its name has the store's whole name."""
        return self.path.with_name(self.path.name + ".pairs.parquet")

    def read_pairs(self) -> pd.DataFrame:
        """Read the table of pairs.

        Raises:
            UserError: It is not there, is damaged, or belongs to another store.
        """
        if self.schema > 1:
            return read_pairs(self.pairs_path, self.identity)
        pairs = read_legacy_pairs(self.path, self.item_ids)
        if pairs is None:
            raise UserError(f"There are no pairs beside {self.path}, which has schema 1; extract it again.")
        return pairs

    def write_pairs(self, pairs: pd.DataFrame) -> bool:
        """Write the table of pairs, unless the same are there; returns whether they were written."""
        return write_pairs(self.pairs_path, pairs, self.identity)

    def read(self, stream: str, reduction: str, sigma: float, block: int) -> Float[np.ndarray, "item ..."]:
        """Read one block's features of all items at one noise level, as float32; NaN where none are written.

        Raises:
            UserError: The store has no such stream, reduction, sigma or block, or a file is lost, swapped or damaged.
        """
        if (stream, reduction) not in self.arrays():
            have = ", ".join("/".join(pair) for pair in self.arrays())
            raise UserError(f"{self.path} has no features/{stream}/{reduction}; it has {have}.")
        if sigma not in self.sigmas:
            raise UserError(f"{self.path} has no sigma {sigma:g}; it has {', '.join(f'{s:g}' for s in self.sigmas)}.")
        blocks = self.blocks_of(stream)
        if block not in blocks:
            raise UserError(f"{self.path} has no block {block} of the {stream} stream; it has {blocks}.")
        where = (self.sigmas.index(sigma), blocks.index(block))
        values = self._arrays.read(f"features/{stream}/{reduction}", (self._rows, *where))
        return self._checked(f"features/{stream}/{reduction}", values, *where).astype(np.float32)

    def read_latents(self, reduction: str) -> Float[np.ndarray, "item ..."]:
        """Read the pooled clean latents of all items, as float32."""
        name = f"latents/{reduction}"
        return self._checked(name, self._arrays.read(name, self._rows), 0, 0).astype(np.float32)

    def read_column(self, name: str) -> np.ndarray:
        """Read what is noted of each item, one of :data:`~probing.features.store.layout.COLUMNS`."""
        return self._checked(name, self._arrays.read(name, self._rows), 0, 0)

    @cached_property
    def item_inputs(self) -> dict[str, np.ndarray] | None:
        """What each item's features were computed from: ``prompt_id``, ``prompt_digest`` (of the words given) and
        ``image_digest`` (of the picture), (item, …); None for a store whose maker did not note them.
        """
        if self.schema == 1 or self.attributes["settings"].get("upgraded_from"):
            return None
        digests = {"prompt_digest": self.prompt_digests, "image_digest": self.read_column("image_digest")}
        return {"prompt_id": self.prompt_ids, **digests}

    def rows_of_run(self, run: int) -> slice:
        return slice(run * self.run_length, min((run + 1) * self.run_length, len(self.item_ids)))

    def read_part(self, part: Part, run: int, rows: int) -> np.ndarray:
        """Read one array of a run at one noise level as it is stored: (row, [block,] …) of the first ``rows`` items.

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
        return next(array for array in (*self.specs, *COLUMNS) if array.name == name)

    def write_run(self, run: int, values: Mapping[Part, np.ndarray]) -> None:
        """Write parts of a run, sync them, and only then enter them in its record.

        Args:
            run: Its number; it holds items ``run · run_length`` up to the next.
            values: For some arrays and noise levels, (row, [block,] …) of all items of the run.

        Raises:
            UserError: The disk is full or cannot be written; what was recorded before stays good.
            ValueError: An unknown array, a wrong shape or type, or a part of more items that leaves others behind.
        """
        items = self.rows_of_run(run)
        rows = items.stop - items.start
        before = self.records.get(run, RunRecord())
        kept = before.checksums if before.rows == rows else {}
        for part, value in values.items():
            array = self.spec(part[0])
            expected = (rows, *(() if array.blocks is None else (len(array.blocks),)), *array.shape)
            if value.shape != expected or str(value.dtype) != array.dtype:
                raise ValueError(
                    f"{part[0]} of run {run} is {array.dtype} {expected}, got {value.dtype} {value.shape}."
                )
        ids = self.ids_of(items)
        record = RunRecord(rows, dict(kept), dict(before.files), ids)
        with self._writing():
            files = {}
            for (name, sigma), value in values.items():
                array = self.spec(name)
                self._arrays.write(name, items if array.blocks is None else (items, sigma), value)
                file = array.file(run, sigma)
                sync_file(self.path / file)
                files[file] = file_checksum(self.path / file)
                record = record.with_part(name, sigma, checksums_of(value, array))
            write_record(self.path, run, RunRecord(rows, record.checksums, {**record.files, **files}, ids))
        self.records[run] = RunRecord(rows, record.checksums, {**record.files, **files}, ids)
        self.__dict__.pop("digest", None)
        self.mark_written(run)

    def mark_written(self, run: int) -> None:
        """Set the mask that readers without this package look at."""
        items = self.rows_of_run(run)
        record = self.records.get(run, RunRecord())
        mask = np.zeros(items.stop - items.start, dtype=bool)
        mask[: record.rows] = record.is_whole(self.specs, len(self.sigmas))
        with self._writing():
            self._arrays.write("written", items, mask)
            sync_file(self.path / "written" / "c" / str(run))

    def difference(self, settings: Mapping[str, Any]) -> list[str]:
        """List the settings in which a request differs from the store."""
        mine = self.attributes["settings"]
        return [
            f"{key} was {mine.get(key)!r} and is now {settings.get(key)!r}"
            for key in sorted({*mine, *settings})
            if _plain(mine.get(key)) != _plain(settings.get(key))
        ]

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store for writing; another process is refused meanwhile, and a killed one lets go.

        Raises:
            UserError: Another process writes this store.
        """
        with locked(self.path):
            yield

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        with sentences_for_disk_errors(self.path):
            yield

    @property
    def _rows(self) -> slice:
        return slice(0, len(self.item_ids))

    def ids_of(self, items: slice) -> dict[str, list[str]]:
        """Return what a record keeps of these items: ids, prompt groups, and digests of words in hex."""
        return {
            "item_id": self.item_ids[items].tolist(),
            "prompt_id": self.prompt_ids[items].tolist(),
            "prompt_digest": [bytes(digest).hex() for digest in self.prompt_digests[items]],
        }

    def read_raw(self, name: str) -> np.ndarray:
        """Read an array as it is on disk, compared with nothing but its own chunks' checksums."""
        return self._arrays.read(name)

    def _checked(self, name: str, values: np.ndarray, sigma: int, block: int) -> np.ndarray:
        """Compare values of all items with the records; values that no record has become fill values."""
        if self.schema == 1:
            return values
        for run in self.runs:
            items = self.rows_of_run(run)
            record = self.records.get(run)
            sums = None if record is None else record.of(name, sigma)
            rows = 0 if record is None or sums is None else record.rows
            if sums is not None and checksum(values[items][:rows]) != sums[block]:
                raise self._damaged(name, run, sigma, block)
            if rows < items.stop - items.start:
                values = values.copy() if not values.flags.writeable else values
                values[items.start + rows : items.stop] = np.nan if values.dtype.kind == "f" else 0
        return values

    def _damaged(self, name: str, run: int, sigma: int, block: int | None = None) -> UserError:
        where = f"{self.path}/{self.spec(name).file(run, sigma)}"
        index = "" if block is None or self.spec(name).blocks is None else f", block {self.spec(name).blocks[block]}"  # type: ignore[index]
        return UserError(
            f"{where} (run {run}{index}) does not hold what was written: it was lost, swapped or damaged; "
            f"{REPAIR} {self.path} computes it again."
        )

    def _legacy_checksums(self) -> dict[str, list[int]]:
        """Checksum every file of a store of schema 1, which has no records."""
        files = sorted(file for file in self.path.rglob("*") if file.is_file() and file.name != "zarr.json")
        return {str(file.relative_to(self.path)): list(file_checksum(file)) for file in files}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
