"""Merge stores of the same extraction: of other items, or of other noise levels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd

from probing.errors import UserError
from probing.features.store.layout import COLUMNS, ArraySpec, to_json
from probing.features.store.leases import Leases
from probing.features.store.store import FeatureStore, Part
from probing.paths import AnyPath, path_of

_DERIVED = {"schema", "identity", "settings", "arrays", "sigmas", "extents", "items_digest", "data_fingerprint"}
_DERIVED |= {"documents", "run_length", "num_blocks", "embedded_timesteps"}
"""Attributes that follow from the merged store."""
_RUNS_IN_MEMORY = 4


def merge(
    paths: Sequence[str | AnyPath], output: str | AnyPath, *, advance: Callable[[int], Any] = lambda runs: None
) -> FeatureStore:
    """Write one store that holds what several hold; they stay as they are. What is written already is kept.

    Args:
        paths: Stores of the same model, data and settings, complete. Either no two have an item in common, and all have
            the same noise levels; or all have the same items, and no two a noise level in common.
        output: Path of the merged store.
        advance: Called with 1 for each run that is done.

    Raises:
        UserError: They differ otherwise, are incomplete or damaged, or disagree on a picture or a pair.
    """
    if len(paths) < 2:
        raise UserError("A merger takes two stores or more; give their paths.")
    output = path_of(output)
    stores = [FeatureStore.open(path) for path in paths]
    for store in stores:
        _refuse_unfit(store, stores[0])
    by_items = _disjoint([set(store.item_ids) for store in stores])
    if by_items:
        _refuse_other(stores, "noise levels", lambda store: sorted(store.sigmas), "items are disjoint")
    elif _disjoint([set(store.sigmas) for store in stores]):
        _refuse_other(stores, "items", lambda store: sorted(store.item_ids), "noise levels are disjoint")
    else:
        raise UserError(
            f"{stores[0].path} and the others have items and noise levels in common; merge stores that share either "
            f"their items or their noise levels, and nothing else."
        )
    pairs = _merged_pairs(stores)
    merged = _created(stores, output, by_items)
    with Leases(output).alone("merging"):
        for run in merged.runs:
            if run not in merged.records:
                rows = merged.rows_of_run(run)
                merged.write_run(run, _values(stores, merged, rows, by_items))
            advance(1)
    merged.write_pairs(pairs)
    return merged


def _refuse_unfit(store: FeatureStore, first: FeatureStore) -> None:
    if store.schema == 1:
        raise UserError(
            f"{store.path} has schema 1; python -m probing.store upgrade {store.path} makes schema 2 of it."
        )
    if different := first.difference(store.attributes["settings"]):
        raise UserError(f"{store.path} was made otherwise than {first.path}: {'; '.join(different)}; leave it out.")
    if sorted(to_json(store.specs)) != sorted(to_json(first.specs)):
        raise UserError(
            f"{store.path} has other streams or reductions than {first.path}; add what is missing by probing.extract."
        )
    if not store.complete:
        raise UserError(f"{store.path} is not complete; finish it by the probing.extract command that began it.")


def _disjoint(sets: Sequence[set[Any]]) -> bool:
    return sum(map(len, sets)) == len(set().union(*sets))


def _refuse_other(
    stores: Sequence[FeatureStore], what: str, of: Callable[[FeatureStore], list[Any]], because: str
) -> None:
    for store in stores[1:]:
        if of(store) != of(stores[0]):
            raise UserError(
                f"{store.path} has other {what} than {stores[0].path}; where {because}, they must be the same."
            )


def _merged_pairs(stores: Sequence[FeatureStore]) -> pd.DataFrame:
    """Join the tables of pairs; a pair that several have must be the same."""
    tables = [store.read_pairs() for store in stores]
    pairs = pd.concat(tables, ignore_index=True)
    key = pairs[["pair_id", "first", "second", "choice"]].drop_duplicates()
    if (again := key["pair_id"].duplicated()).any():
        raise UserError(
            f"The stores disagree on pair {key['pair_id'][again].iloc[0]!r}; extract them from the same data."
        )
    return pairs.drop_duplicates("pair_id", ignore_index=True)


def _created(stores: Sequence[FeatureStore], output: AnyPath, by_items: bool) -> FeatureStore:
    """Create the merged store, or open what an interrupted merger has left of it."""
    first = stores[0]
    sources = stores if by_items else [first]
    items = pd.DataFrame(
        {
            "item_id": np.concatenate([store.item_ids for store in sources]),
            "prompt_id": np.concatenate([store.prompt_ids for store in sources]),
            "prompt_digest": [digest.tobytes() for store in sources for digest in store.prompt_digests],
        }
    )
    sigmas = first.sigmas if by_items else [sigma for store in stores for sigma in store.sigmas]
    provenance = {name: value for name, value in first.attributes.items() if name not in _DERIVED}
    provenance = {name: value for name, value in provenance.items() if name not in first.attributes["settings"]}
    times = {
        sigma: time
        for store in stores
        for sigma, time in zip(store.sigmas, store.attributes.get("embedded_timesteps", ()), strict=False)
    }
    if times:
        provenance["embedded_timesteps"] = [times[sigma] for sigma in sigmas]
    starts = [0, *accumulate(len(store.item_ids) for store in sources)]
    cuts = [start + cut for start, store in zip(starts, sources, strict=False) for cut in store.extents]
    try:
        return FeatureStore.create(
            output,
            arrays=first.specs,
            items=items,
            sigmas=sigmas,
            num_blocks=first.num_blocks,
            run_length=first.run_length,
            settings=first.attributes["settings"],
            provenance=provenance,
            extents=cuts[:-1],
        )
    except FileExistsError:
        merged = FeatureStore.open(output)
    same = merged.item_ids.tolist() == items["item_id"].tolist() and merged.sigmas == list(sigmas)
    if not same or merged.difference(first.attributes["settings"]):
        raise UserError(f"{output} holds something else; give another --output, or delete it.") from None
    return merged


def _values(
    stores: Sequence[FeatureStore], merged: FeatureStore, rows: slice, by_items: bool
) -> Mapping[Part, np.ndarray]:
    """Return the values of a run of the merged store."""
    ids = merged.item_ids[rows]
    values: dict[Part, np.ndarray] = {}
    for array in (*merged.specs, *COLUMNS):
        for s in array.sigmas(len(merged.sigmas)):
            if by_items:
                parts = [_of_items(store, array, merged.sigmas[s], ids) for store in stores]
                values[array.name, s] = np.concatenate([part for part in parts if len(part)])
                continue
            holders = [store for store in stores if array.blocks is None or merged.sigmas[s] in store.sigmas]
            copies = [_of_items(store, array, merged.sigmas[s], ids) for store in holders]
            if array.name == "image_digest" and any((copy != copies[0]).any() for copy in copies):
                item = ids[int(np.argmax(np.any([copy != copies[0] for copy in copies], axis=(0, 2))))]
                raise UserError(f"The stores were made from other pictures of item {item!r}; extract them again.")
            values[array.name, s] = copies[0]
    return values


def _of_items(store: FeatureStore, array: ArraySpec, sigma: float, ids: np.ndarray) -> np.ndarray:
    """Read an array of those items that a store has, in the given order."""
    position = _positions(store)
    rows = np.array([position[item] for item in ids if item in position], dtype=int)
    s = 0 if array.blocks is None else store.sigmas.index(sigma)
    if not len(rows):
        return np.empty((0,))
    runs = rows // store.run_length
    pieces = {run: _part(store, array.name, s, int(run)) for run in np.unique(runs)}
    return np.stack([pieces[run][row - run * store.run_length] for run, row in zip(runs, rows, strict=True)])


@lru_cache(maxsize=64)
def _positions(store: FeatureStore) -> dict[str, int]:
    return {item: row for row, item in enumerate(store.item_ids)}


@lru_cache(maxsize=_RUNS_IN_MEMORY)
def _part(store: FeatureStore, name: str, sigma: int, run: int) -> np.ndarray:
    return store.read_part((name, sigma), run, store.records[run].rows)
