"""List what an extraction has to compute: all of a new store, or what an existing one lacks."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from probing.errors import UserError
from probing.features.plan import ExtractionPlan, make_plan
from probing.features.prompts import given_prompts
from probing.features.settings import ADDED_SETTINGS, ExtractionSettings
from probing.features.store import ArraySpec, FeatureStore
from probing.features.store.growth import is_used, words_digest
from probing.features.store.layout import COLUMNS
from probing.features.store.records import RunRecord
from probing.features.store.store import Part
from probing.paths import AnyPath, reached
from probing.preferences import PreferenceData
from probing.preferences.images import RULES, picture_digest

GROWING = ("sigmas", "streams", "reductions")
"""Settings that can be added to a store; every other one must be as when it was made."""
_WORKERS = 8
_AHEAD = 64


@dataclass(frozen=True)
class Segment:
    """Items of one run that are computed in the same batches whenever they are computed.

    Attributes:
        start: Row of the first item in the store.
        stop: Row behind the last.
        parts: Arrays that are computed, each at one noise level.
    """

    start: int
    stop: int
    parts: tuple[Part, ...]

    @property
    def sigmas(self) -> list[int]:
        """Positions of the noise levels that take a forward."""
        return sorted({sigma for name, sigma in self.parts if name.startswith("features/")})


def forwards_of(segments: Iterable[Segment]) -> int:
    """Count the forwards, of one item at one noise level each, that segments take."""
    return sum((segment.stop - segment.start) * len(segment.sigmas) for segment in segments)


@dataclass(frozen=True, eq=False)
class Work:
    """What a request has to compute.

    Attributes:
        plan: Plan of the finished store: its items, noise levels and reductions, with those that are added.
        items: Items of the finished store in order, with ``prompt``, the words given to the text encoders, and
            ``in_data``, whether the data of this request hold them.
        settings: Everything that decides values, as the store records it.
        store: The existing store, if there is one.
    """

    plan: ExtractionPlan
    items: pd.DataFrame
    settings: dict[str, Any]
    store: FeatureStore | None

    @property
    def new_items(self) -> int:
        return len(self.items) - (0 if self.store is None else len(self.store.item_ids))

    @property
    def grows(self) -> bool:
        """Whether the store needs room for more."""
        store = self.store
        return store is not None and bool(
            self.new_items
            or len(self.plan.settings.sigmas) > len(store.sigmas)
            or len(self.plan.arrays) > len(store.specs)
        )

    def segments(self, store: FeatureStore | None = None) -> dict[int, list[Segment]]:
        """List, by run, what is missing in a store that has room for all of it."""
        store = store or self.store
        by_run = {run: self.segments_of(run, store) for run in range(-(-len(self.items) // self.plan.run_length))}
        return {run: segments for run, segments in by_run.items() if segments}

    def segments_of(self, run: int, store: FeatureStore | None) -> list[Segment]:
        """List what is missing of one run."""
        length = self.plan.run_length
        record = RunRecord() if store is None else store.records.get(run, RunRecord())
        start, stop = run * length, min((run + 1) * length, len(self.items))
        missing = self._missing(record)
        extents = [] if store is None else store.extents
        cuts = sorted({start, stop, *(extent for extent in extents if start < extent < stop)})
        segments = []
        for a, b in pairwise(cuts):
            parts = missing if b <= start + record.rows else self._missing(RunRecord())
            if parts:
                segments.append(Segment(a, b, parts))
        return segments

    def forwards(self) -> int:
        """Count the forwards, of one item at one noise level each, that are still to be run."""
        return sum(forwards_of(segments) for segments in self.segments().values())

    def items_to_compute(self) -> list[pd.DataFrame]:
        """Return the items of each segment, which are encoded together."""
        return [self.items.iloc[part.start : part.stop] for run in self.segments().values() for part in run]

    def describe(self) -> str:
        """Describe what an existing store has and lacks; empty for a new store."""
        if self.store is None:
            return ""
        store = self.store
        added = [
            f"{self.new_items:,} items" if self.new_items else "",
            _added("sigma", [f"{s:g}" for s in self.plan.settings.sigmas[len(store.sigmas) :]]),
            _added("", [a.name for a in self.plan.arrays if a.name not in {b.name for b in store.specs}]),
        ]
        additions = ", ".join(part for part in added if part) or "nothing"
        return f"{'there':>9}  {len(store.item_ids):,} items; adds {additions}; {self.forwards():,} forwards to run"

    def _missing(self, record: RunRecord) -> tuple[Part, ...]:
        arrays: Iterable[ArraySpec] = (*self.plan.arrays, *COLUMNS)
        sigmas = len(self.plan.settings.sigmas)
        return tuple((a.name, s) for a in arrays for s in a.sigmas(sigmas) if not record.has(a.name, s))


def plan_work(
    plan: ExtractionPlan, data: PreferenceData, output: AnyPath, *, parts: Mapping[str, str] | None, device: str
) -> Work:
    """Compare a request with the existing store, before any weights are loaded.

    Args:
        plan: Plan of a new store of these data.
        data: The requested items.
        output: Path of the store.
        parts: Digests of the model's parts; None if its files are not on this machine yet.
        device: Type of the device where forwards run.

    Raises:
        UserError: The request and the store differ in what cannot be added to: settings, the model's parts, words or
            pictures of an item; or the data lack items of which features are still to be computed.
    """
    with reached(output):
        is_file = output.is_file()
    if is_file:
        raise UserError(f"{output} is no folder, and a store is one; give another --output.")
    requested = extraction_order(data)
    requested["prompt"] = given_prompts(requested, data.pairs, plan.settings.prompts, plan.settings.seed)
    store = FeatureStore.open(output) if is_used(output) else None
    if store is None:
        return Work(plan, requested.assign(in_data=True), stored_settings(plan, data, parts, device), None)
    if store.schema == 1:
        raise UserError(f"{output} has schema 1; python -m probing.store upgrade {output} makes schema 2 of it.")
    _refuse_difference(store, stored_settings(plan, data, parts, device), output)
    items = _with_stored_items(requested, store, output)
    settings = _with_stored_settings(plan.settings, store)
    plan = make_plan(plan.spec, settings, items=len(items), prompts=items["prompt_id"].nunique())
    plan = replace(plan, run_length=store.run_length, arrays=_in_order(plan.arrays, store.specs))
    work = Work(plan, items, stored_settings(plan, data, parts, device), store)
    absent = pd.concat([items[~items["in_data"]] for items in work.items_to_compute()] or [items.iloc[:0]])
    if len(absent):
        raise UserError(
            f"{output} has {len(absent):,} items that {data.name} lacks, such as {absent['item_id'].iloc[0]!r}, and "
            f"features of them are still to be computed; give data that hold them, or another --output."
        )
    _refuse_other_pictures(store, data, items, output)
    return work


def extraction_order(data: PreferenceData) -> pd.DataFrame:
    """Order the items for a new store: prompt groups stay together, so that a prompt is encoded once."""
    first_seen = data.items.groupby("prompt_id", sort=False).ngroup()
    return data.items.iloc[np.argsort(first_seen.to_numpy(), kind="stable")].reset_index(drop=True)


def stored_settings(
    plan: ExtractionPlan, data: PreferenceData, parts: Mapping[str, str] | None, device: str
) -> dict[str, Any]:
    """Return everything that decides the values in a store, except what can be added to."""
    settings = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in asdict(plan.settings).items()
        if key not in (*GROWING, "blocks", "placement")
    }
    return {
        **settings,
        "blocks": list(plan.blocks),
        "model": plan.spec.name,
        "parts": None if parts is None else dict(parts),
        "config_hash": plan.spec.architecture.config_hash,
        "data": data.name,
        "noise": "philox4x64 keyed by blake2b(seed, item or prompt id)",
        "image_preparation": RULES,
        "latents": "posterior mode",
        "image_tokens": plan.image_tokens,
        "clip_tokens": plan.spec.architecture.prompt_limit(plan.settings.t5_length),
        "device": device,
    }


def stamp_digest(data: PreferenceData, item_id: str) -> bytes:
    """Return 16 bytes of a picture's cheap identity, such as its file's size and times; zeros where there is none."""
    stamp = data.stamp_of(item_id)
    return bytes(16) if stamp is None else hashlib.blake2b(stamp.encode(), digest_size=16).digest()


def _with_stored_settings(settings: ExtractionSettings, store: FeatureStore) -> ExtractionSettings:
    return replace(
        settings,
        sigmas=tuple(dict.fromkeys([*store.sigmas, *settings.sigmas])),
        streams=tuple(dict.fromkeys([*store.attributes["streams"], *settings.streams])),
        reductions=tuple(dict.fromkeys([*store.attributes["reductions"], *settings.reductions])),
    )


def _with_stored_items(requested: pd.DataFrame, store: FeatureStore, output: AnyPath) -> pd.DataFrame:
    """Put the items of a store first, the new ones behind them; an item that both have must have the same words."""
    by_id = requested.set_index("item_id", drop=False)
    row = pd.Series(np.arange(len(store.item_ids)), index=store.item_ids)
    both = requested["item_id"][requested["item_id"].isin(row.index)]
    rows = row.loc[both].to_numpy()
    selected = by_id.loc[both]
    changed = store.prompt_ids[rows] != selected["prompt_id"].to_numpy()
    changed |= (store.prompt_digests[rows] != words_digest(selected["prompt"])).any(axis=1)
    if changed.any():
        first = both.to_numpy()[int(np.argmax(changed))]
        raise UserError(
            f"{output} has item {first!r} with another prompt ({int(changed.sum()):,} such items); "
            f"give another --output."
            + (
                " Words of other prompts are dealt among all items, so none can be added."
                if store.attributes["settings"].get("prompts") == "foreign"
                else ""
            )
        )
    stored = pd.DataFrame({"item_id": store.item_ids, "prompt_id": store.prompt_ids})
    stored = stored.join(by_id.drop(columns=["item_id", "prompt_id"]), on="item_id")
    stored["in_data"] = stored["item_id"].isin(both)
    new = requested[~requested["item_id"].isin(row.index)].assign(in_data=True)
    return pd.concat([stored, new], ignore_index=True)


def _in_order(arrays: tuple[ArraySpec, ...], stored: tuple[ArraySpec, ...]) -> tuple[ArraySpec, ...]:
    """Put the arrays of a store first."""
    names = {array.name for array in stored}
    return (*stored, *(array for array in arrays if array.name not in names))


def _refuse_difference(store: FeatureStore, settings: dict[str, Any], output: AnyPath) -> None:
    stored = store.attributes["settings"]
    if stored.get("upgraded_from"):
        raise UserError(
            f"{output} was made by an earlier version, which noted too little of model and pictures to add to it; "
            f"its features can be read, and others need another --output."
        )
    here, there = settings["parts"], stored["parts"]
    # Before the files of a model are here, its parts cannot be compared.
    different = store.difference({**_without_added(settings, stored), "parts": there})
    if not different and here is not None and there is not None:
        changed = sorted(name for name in {*here, *there} if here.get(name) != there.get(name))
        different = [f"the files of {name} of {stored['model']} are others" for name in changed]
    if different:
        raise UserError(
            f"{output} holds features made with other settings: {'; '.join(different)}. "
            f"Give another --output, or delete it."
        )


def _without_added(settings: dict[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out settings that an earlier store does not name, if they are what it was made with."""
    return {
        name: value
        for name, value in settings.items()
        if name in stored or name not in ADDED_SETTINGS or value != ADDED_SETTINGS[name]
    }


def _refuse_other_pictures(store: FeatureStore, data: PreferenceData, items: pd.DataFrame, output: AnyPath) -> None:
    """Compare pictures by their stamps, and by their pixels where stamps differ."""
    recorded = np.zeros(len(store.item_ids), dtype=bool)
    for run, record in store.records.items():
        if record.has("image_digest", 0):
            recorded[run * store.run_length : run * store.run_length + record.rows] = True
    rows = np.flatnonzero(recorded & items["in_data"].to_numpy(dtype=bool)[: len(recorded)])
    if not len(rows):
        return
    stamps, digests = store.read_column("image_stamp"), store.read_column("image_digest")
    ids = store.item_ids
    unsure = [r for r in rows if not stamps[r].any() or stamps[r].tobytes() != stamp_digest(data, ids[r])]
    for row, digest in _digests(data, [(int(row), str(ids[row])) for row in unsure]):
        if digest != digests[row].tobytes():
            raise UserError(
                f"{output} was made from another picture of item {ids[row]!r} ({data.image_of(ids[row])}); "
                f"give another --output, or delete it."
            )


def _digests(data: PreferenceData, rows: list[tuple[int, str]]) -> Iterator[tuple[int, bytes]]:
    """Digest pictures in threads, a bounded number ahead; yield them by row, in order."""
    waiting: deque[Any] = deque()
    with ThreadPoolExecutor(_WORKERS) as pool:
        for row, item_id in rows:
            waiting.append((row, pool.submit(lambda name: picture_digest(data.open_image(name)), item_id)))
            if len(waiting) >= _AHEAD:
                done = waiting.popleft()
                yield done[0], done[1].result()
        for row, future in waiting:
            yield row, future.result()


def _added(what: str, names: list[str]) -> str:
    return f"{what} {', '.join(names)}".strip() if names else ""
