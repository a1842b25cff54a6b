"""Find what is missing or damaged in a store, and repair what needs no model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from probing.errors import UserError
from probing.features.store.documents import DOCUMENT, is_canonical, read_document
from probing.features.store.growth import (
    commit,
    items_digest,
    remove_folder,
    sync_file,
    write_items,
    write_sigmas,
    zarr_place,
)
from probing.features.store.layout import COLUMNS, RUNS, blocks_by_stream, create_arrays, from_json, metadata_files
from probing.features.store.pairs_table import is_as_written
from probing.features.store.records import RunRecord, checksums_of, file_checksum, read_record, write_record
from probing.features.store.store import FeatureStore, Part
from probing.paths import AnyPath, path_of

_REWRITE = "the same probing.extract command writes it again"


@dataclass(frozen=True)
class Problem:
    """A missing or damaged file.

    Attributes:
        file: Path of the file, relative to the store, or the name of the table of pairs.
        message: Description of the problem.
        run: The run whose features must be computed again; None if none must.
        part: Array and noise level of the run; None for the whole run.
    """

    file: str
    message: str
    run: int | None = None
    part: Part | None = None

    def __str__(self) -> str:
        return f"{self.file}: {self.message}"


def check(
    path: str | AnyPath, *, deep: bool = True, advance: Callable[[int], Any] = lambda files: None
) -> list[Problem]:
    """Compare a store with its records.

    Args:
        path: The store.
        deep: Whether to read every file; without, only documents, coordinates and sizes of files are checked.
        advance: Called with 1 for each checked file of features.

    Raises:
        UserError: There is no store at all, or one of another schema.
    """
    path = path_of(path)
    problems = list(_root(path))
    if problems:
        return problems
    try:
        store = FeatureStore.open(path)
    except UserError as error:
        # Find the damaged documents and coordinates.
        attributes = read_document(path)
        _require_schema(path, attributes)
        return [*_documents(path, attributes), Problem("coordinates", str(error))]
    _require_schema(path, store.attributes)
    problems += _documents(path, store.attributes)
    problems += _coordinates(store)
    for run in store.runs:
        problems += _run(store, run, deep, advance)
    problems += _mask(store)
    problems += _pairs(store, deep)
    return problems


def _require_schema(path: AnyPath, attributes: Mapping[str, Any]) -> None:
    if attributes.get("schema") == 1:
        raise UserError(
            f"{path} has schema 1, which has no checksums of its coordinates and records; "
            f"python -m probing.store upgrade {path} adds them."
        )


def _root(path: AnyPath) -> Iterator[Problem]:
    if not path.is_dir():
        raise UserError(f"There is no feature store at {path}; python -m probing.extract creates one.")
    copy = path / RUNS
    if not (path / DOCUMENT).exists() and not copy.exists():
        raise UserError(f"{path} is no feature store: it has no zarr.json; give another path.")
    try:
        attributes = read_document(path)
    except UserError as error:
        yield Problem(DOCUMENT, str(error))
        return
    if attributes.get("schema") == 1:
        return
    if "documents" not in attributes or not is_canonical(path):
        yield Problem(DOCUMENT, "it was edited or damaged")
        return
    try:
        copied = read_document(copy)
    except UserError as error:
        yield Problem(f"{RUNS}/{DOCUMENT}", str(error))
        return
    if copied != attributes or not is_canonical(copy):
        yield Problem(f"{RUNS}/{DOCUMENT}", "this copy of zarr.json differs from the original")


def _documents(path: AnyPath, attributes: Mapping[str, Any]) -> Iterator[Problem]:
    expected = attributes["documents"]
    for name in sorted({*expected, *metadata_files(path)}):
        if name not in expected:
            yield Problem(name, "it does not belong to this store")
        elif not (path / name).is_file():
            yield Problem(name, "it is missing")
        elif list(file_checksum(path / name)) != expected[name]:
            yield Problem(name, "it was edited or damaged, or an addition was interrupted")


def _coordinates(store: FeatureStore) -> Iterator[Problem]:
    for stream in {stream for stream, _ in store.arrays()}:
        name = f"features/{stream}/depth"
        expected = [(block + 1) / store.num_blocks for block in store.blocks_of(stream)]
        values = _values(store, name)
        if values is None or values.tolist() != expected:
            yield Problem(name, "it is damaged")


def _run(store: FeatureStore, run: int, deep: bool, advance: Callable[[int], Any]) -> Iterator[Problem]:
    try:
        record = store.records.get(run)
    except UserError:
        # Another record may be the damaged one.
        try:
            record = read_record(store.path, run)
        except UserError as error:
            yield Problem(f"{RUNS}/{run}/{DOCUMENT}", str(error), run)
            return
    document = f"{RUNS}/{run}/{DOCUMENT}"
    if record is None:
        if (store.path / RUNS / str(run)).exists() or _marked(store, run):
            yield Problem(document, "the record of a run is missing", run)
        return
    if not is_canonical(store.path / RUNS / str(run)):
        yield Problem(document, "it was edited or damaged", run)
        return
    items = slice(run * store.run_length, run * store.run_length + record.rows)
    if record.items != store.ids_of(items):
        yield Problem(document, "it is the record of other items", run)
        return
    for array in (*store.specs, *COLUMNS):
        for sigma in array.sigmas(len(store.sigmas)):
            if record.has(array.name, sigma):
                advance(1)
                yield from _check_file(store, run, record, (array.name, sigma), deep)


def _check_file(store: FeatureStore, run: int, record: RunRecord, part: Part, deep: bool) -> Iterator[Problem]:
    """Compare one file of a run with its record: existence and size, and if ``deep`` its bytes and values."""
    array = store.spec(part[0])
    name = array.file(run, part[1])
    file = store.path / name
    size, _ = record.files.get(name, (None, None))
    if not file.is_file():
        yield Problem(name, "it is missing", run, part)
    elif file.stat().st_size != size:
        yield Problem(name, f"it has {file.stat().st_size} bytes, expected {size}", run, part)
    elif deep:
        if file_checksum(file) != record.files[name]:
            yield Problem(name, "its content was changed", run, part)
            return
        try:
            values = store.read_part(part, run, record.rows)
        except UserError as error:
            yield Problem(name, str(error), run, part)
        else:
            assert checksums_of(values, array) == record.of(*part)


def _mask(store: FeatureStore) -> Iterator[Problem]:
    mask = _values(store, "written")
    try:
        expected = store.written
    except UserError:
        return
    if mask is None or mask.shape[0] < len(expected):
        yield Problem("written", "it is damaged")
        return
    for run in store.runs:
        items = store.rows_of_run(run)
        file = store.path / "written" / "c" / str(run)
        if (mask[items] != expected[items]).any() or (run in store.records and not file.is_file()):
            yield Problem(f"written/c/{run}", "it differs from the record of its run")


def _pairs(store: FeatureStore, deep: bool) -> Iterator[Problem]:
    try:
        if deep:
            store.read_pairs()
            if not is_as_written(store.pairs_path):
                yield Problem(store.pairs_path.name, f"it was edited or damaged; {_REWRITE}")
        elif not store.pairs_path.is_file():
            yield Problem(store.pairs_path.name, f"it is missing; {_REWRITE}")
    except UserError as error:
        yield Problem(store.pairs_path.name, str(error))


def _marked(store: FeatureStore, run: int) -> bool:
    mask = _values(store, "written")
    return mask is not None and bool(mask[store.rows_of_run(run)].any())


def _values(store: FeatureStore, name: str) -> np.ndarray | None:
    try:
        return store.read_raw(name)
    except UserError:
        return None


def repair(path: str | AnyPath, problems: list[Problem]) -> list[str]:
    """Restore documents and coordinates, and remove damaged files from the records of their runs.

    Features that are removed are then missing; the same ``probing.extract`` command computes them again.

    Args:
        path: The store.
        problems: Problems that :func:`check` found.

    Returns:
        Descriptions of the changes.

    Raises:
        UserError: The root document and its copy are both damaged, or the item ids cannot be restored.
    """
    path = path_of(path)
    changes = []
    if any(problem.file in (DOCUMENT, f"{RUNS}/{DOCUMENT}") for problem in problems):
        changes.append(_restore_root_document(path))
        problems = check(path)
    attributes = read_document(path)
    if any(problem.run is None for problem in problems):
        changes += _restore_documents(path, attributes, problems)
        problems = check(path)
    store = FeatureStore.open(path)
    runs = {problem.run for problem in problems if problem.run is not None}
    for run in sorted(runs):
        bad = {p.part for p in problems if p.run == run}
        changes.append(_remove_parts(path, run, bad, store))
    store = FeatureStore.open(path)
    for problem in _mask(store):
        store.mark_written(int(problem.file.rsplit("/", 1)[-1]) if "/c/" in problem.file else 0)
        changes.append(f"{problem.file}: restored")
    return changes


def _restore_root_document(path: AnyPath) -> str:
    """Restore the root's ``zarr.json`` from its copy, or the copy from it; only a sealed one lists ``documents``."""
    for folder, restored in ((path, f"the copy of {DOCUMENT}"), (path / RUNS, DOCUMENT)):
        try:
            attributes = read_document(folder)
        except UserError:
            continue
        if "documents" in attributes:
            commit(path, {name: value for name, value in attributes.items() if name != "documents"})
            return f"{restored}: restored"
    raise UserError(f"{DOCUMENT} of {path} and its copy are both damaged; delete the store and extract it again.")


def _restore_documents(path: AnyPath, attributes: dict[str, Any], problems: list[Problem]) -> list[str]:
    """Restore documents and coordinates from the root document and the copies in the records."""
    changes = []
    expected = set(attributes["documents"])
    for problem in problems:
        file = path / problem.file
        if problem.run is None and problem.file.endswith(DOCUMENT):
            file.unlink(missing_ok=True)
            changes.append(f"{problem.file}: {'restored' if problem.file in expected else 'removed'}")
        elif problem.file.startswith("features/") and problem.run is None:
            remove_folder(file)
            changes.append(f"{problem.file}: restored")
    count = attributes["extents"][-1]
    ids = _ids_of(path, attributes, count)
    if "coordinates" in {problem.file for problem in problems}:
        for stream in blocks_by_stream(from_json(attributes["arrays"])):
            for name in ("block", "depth"):
                remove_folder(path / "features" / stream / name)
        for name in ("item_id", "prompt_id", "prompt_digest", "sigma"):
            if ids is None and name != "sigma":
                continue
            remove_folder(path / name)
    group = zarr.open_group(zarr_place(path), mode="r+")
    create_arrays(group, attributes, count)
    write_sigmas(group, attributes["sigmas"])
    if ids is not None:
        write_items(group, ids["item_id"], ids["prompt_id"], ids["prompt_digest"], slice(0, count))
    commit(path, {name: value for name, value in attributes.items() if name != "documents"})
    try:
        FeatureStore.open(path)
    except UserError as error:
        raise UserError(
            f"The item ids of {path} cannot be restored: not every run has a record ({error}); "
            f"delete the store and extract it again."
        ) from None
    return [*changes, "coordinates: restored"]


def _ids_of(path: AnyPath, attributes: Mapping[str, Any], count: int) -> dict[str, Any] | None:
    """Collect the ids from the records of all runs; None if a record is missing, or they differ from the store's."""
    whole: dict[str, list[str]] = {"item_id": [], "prompt_id": [], "prompt_digest": []}
    for run in range(-(-count // int(attributes["run_length"]))):
        try:
            record = read_record(path, run)
        except UserError:
            record = None
        if record is None:
            return None
        for name, values in whole.items():
            values += record.items[name]
    words = np.frombuffer(bytes.fromhex("".join(whole["prompt_digest"])), np.uint8).reshape(-1, 16)
    if items_digest(whole["item_id"], whole["prompt_id"], words) != attributes["items_digest"]:
        return None
    return {**whole, "prompt_digest": words}


def _remove_parts(path: AnyPath, run: int, parts: set[Part | None], store: FeatureStore) -> str:
    """Remove damaged parts of a run, files and checksums; the whole record if it is damaged."""
    folder = path / RUNS / str(run)
    record = None if None in parts else read_record(path, run)
    if record is None:
        remove_folder(folder)
        sync_file(path / RUNS / DOCUMENT)
        return f"run {run}: its record is removed"
    for part in parts:
        assert part is not None
        (path / store.spec(part[0]).file(run, part[1])).unlink(missing_ok=True)
        record = record.with_part(*part, None)
    write_record(path, run, record)
    names = ", ".join(sorted({part[0] for part in parts if part is not None}))
    return f"run {run}: {names} is removed from its record"
