"""Upgrade a store of schema 1 to schema 2: the same features, with checksums, and a table of pairs linked to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probing.errors import UserError
from probing.features.store.layout import COLUMNS, ArraySpec
from probing.features.store.pairs_table import read_legacy_pairs
from probing.features.store.store import FeatureStore
from probing.files import sync

_UNKNOWN_WORDS = "words were not noted in schema 1"
"""Replaces the prompts, which schema 1 lacks; stores have its digest."""


def upgrade(path: Path, *, advance: Callable[[int], Any] = lambda runs: None) -> Path | None:
    """Write a store of schema 1 as schema 2, and keep the old store next to it.

    Args:
        path: The store.
        advance: Called with 1 for each run.

    Returns:
        Path of the old store, for the user to delete; None if the store has schema 2 already.

    Raises:
        UserError: There is no store, or features are damaged or missing.
    """
    path = Path(path)
    backup, upgraded = path.with_name(path.name + ".schema-1"), path.with_name(path.name + ".schema-2")
    if not path.exists() and backup.exists() and upgraded.exists():
        # A kill between the two renames.
        os.rename(upgraded, path)
        return backup
    old = FeatureStore.open(path)
    if old.schema > 1:
        return None
    if backup.exists():
        raise UserError(f"{backup}, the new name of the old store, is in use; move or delete it.")
    arrays = old.specs
    pairs = read_legacy_pairs(path, old.item_ids)
    new = _start(old, upgraded, arrays)
    for run in new.runs:
        if run in new.records:
            continue
        items = new.rows_of_run(run)
        if not old.written[items].all():
            raise UserError(
                f"{path} is unfinished: items of run {run} are not written; finish it with the version that started "
                f"it, or extract it again."
            )
        values: dict[tuple[str, int], np.ndarray] = {}
        for array in arrays:
            whole = old.read_raw(array.name)[items]
            for sigma in array.sigmas(len(new.sigmas)):
                part = whole if array.blocks is None else whole[:, sigma]
                if np.isnan(part).any():
                    raise UserError(f"{path}/{array.name} lacks features of run {run}; extract the store again.")
                values[array.name, sigma] = np.ascontiguousarray(part)
        for column in COLUMNS:
            values[column.name, 0] = np.zeros((items.stop - items.start, *column.shape), column.dtype)
        new.write_run(run, values)
        advance(1)
    os.rename(path, backup)
    os.rename(upgraded, path)
    sync(path.parent)
    if pairs is not None:
        FeatureStore.open(path).write_pairs(pairs)
    return backup


def _start(old: FeatureStore, path: Path, arrays: tuple[ArraySpec, ...]) -> FeatureStore:
    if path.exists():
        return FeatureStore.open(path)
    settings = {
        name: value
        for name, value in old.attributes["settings"].items()
        if name not in ("arrays", "sigmas", "run_length", "data_fingerprint", "streams", "reductions")
    }
    items = pd.DataFrame({"item_id": old.item_ids, "prompt_id": old.prompt_ids, "prompt": _UNKNOWN_WORDS})
    provenance = ("versions", "data_settings", "parameters", "forward_flops")
    return FeatureStore.create(
        path,
        arrays=arrays,
        items=items,
        sigmas=old.sigmas,
        num_blocks=old.num_blocks,
        run_length=old.run_length,
        settings={**settings, "upgraded_from": 1},
        provenance={name: old.attributes[name] for name in provenance if name in old.attributes},
    )
