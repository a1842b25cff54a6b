"""Extract features of items into a store, run by run."""

from __future__ import annotations

import glob
import importlib.metadata
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from probing.backbones import Backbone, Streams
from probing.errors import UserError
from probing.features.kept_inputs import KeptInputs
from probing.features.memory import FittingBatches, sentence_for_full_memory
from probing.features.plan import ExtractionPlan
from probing.features.reading import Masks, Reading, Reduce, encode_items, read_encoded
from probing.features.reductions import reduce_image, reduce_text
from probing.features.settings import latent_reductions
from probing.features.store import FeatureStore, to_stored
from probing.features.store.leases import Busy, Leases, Worker
from probing.features.store.quick_check import pairs_name, repair_quickly
from probing.features.store.records import RunRecord
from probing.features.store.store import Part
from probing.features.work import Segment, Work, forwards_of, plan_work, stamp_digest
from probing.paths import AnyPath, is_remote, path_of
from probing.preferences import PreferenceData
from probing.progress import progress

_PAUSE = 1.0
"""Seconds between looks at runs that other processes compute."""
_VERSIONED = ("torch", "diffusers", "transformers", "nnsight", "zarr", "numpy")


@dataclass(frozen=True)
class Extracted:
    """The result of an extraction.

    Attributes:
        store: The feature store, complete.
        computed: Number of items of which features were computed now.
        notes: What was missing or damaged in the store, and what did not fit into memory, a sentence each.
    """

    store: FeatureStore
    computed: int
    notes: tuple[str, ...] = ()


def extract(
    plan: ExtractionPlan,
    backbone: Backbone,
    data: PreferenceData,
    output: str | AnyPath,
    *,
    request: Mapping[str, Any] | None = None,
    work: Work | None = None,
    kept: KeptInputs | None = None,
) -> Extracted:
    """Compute what the store at ``output`` lacks of these data, noise levels, streams and reductions.

    Every run of items is computed in the same batches whenever it is computed, so a run that was killed and
    started again ends in the same bytes as an undisturbed one. Items, noise levels, streams and reductions are added
    to an existing store; pairs are written anew beside it. Several processes may compute one store: each claims whole
    runs, and all end when no run lacks anything.

    Args:
        plan: By :func:`probing.features.plan.make_plan`, for these items.
        backbone: The loaded backbone.
        data: Items to extract; the pairs are written beside the store.
        output: Path of the store; it is made, or continued if it was made with the same settings.
        request: Options of the command, as JSON; kept, so that a damaged store can be repaired.
        work: By :func:`probing.features.work.plan_work` just before, so that pictures are compared once.
        kept: Latents and prompts of earlier extractions, to be read and added to.

    Raises:
        UserError: Other settings, a bad image, a full disk, too little memory, or additions while others are at work.
    """
    notes = () if work is not None else tuple(repair_quickly(path_of(output)))
    with join(plan, backbone, data, output, request=request, work=work, kept=kept) as computer:
        computed = _compute_missing(computer) if computer.missing() else 0
    if (size := computer.fitting.size) is not None:
        notes = (*notes, f"batches of {plan.settings.batch_size} did not fit into memory: read by {size}")
    return Extracted(computer.store, computed, notes)


@contextmanager
def join(
    plan: ExtractionPlan,
    backbone: Backbone,
    data: PreferenceData,
    output: str | AnyPath,
    *,
    request: Mapping[str, Any] | None = None,
    work: Work | None = None,
    kept: KeptInputs | None = None,
) -> Iterator[RunComputer]:
    """Work on a store, alone or beside others; arguments and errors are those of :func:`extract`."""
    output = path_of(output)
    leases = Leases(output)

    def plan_again() -> Work:
        return plan_work(plan, data, output, parts=backbone.parts, device=backbone.device.type)

    if work is None or work.settings["parts"] != backbone.parts:
        work = plan_again()
    while True:
        work = _with_store(work, plan_again, leases, backbone, data, output, request)
        assert work.store is not None
        with leases.joined(work.plan.spec.name, work.forwards()) as worker:
            store = FeatureStore.open(output)
            if store.attributes == work.store.attributes:
                store.write_pairs(data.pairs)
                yield RunComputer(work, backbone, data, store, kept, worker)
                return
        # Another process has added to it meanwhile.
        work = plan_again()


def _with_store(
    work: Work,
    plan_again: Callable[[], Work],
    leases: Leases,
    backbone: Backbone,
    data: PreferenceData,
    output: AnyPath,
    request: Mapping[str, Any] | None,
) -> Work:
    """Bring the store to the form of the finished one: created, grown, free of what killed processes left."""
    if work.store is None:
        try:
            return replace(work, store=_create(work, backbone, data, output, request))
        except FileExistsError:
            # Another process made it first.
            work = plan_again()
    assert work.store is not None
    if not work.grows and not work.segments():
        return work
    try:
        with leases.alone("adding to the store"):
            _remove_partial_files(output)
            if FeatureStore.open(output).attributes != work.store.attributes:
                work = plan_again()
            assert work.store is not None
            if not work.grows:
                return work
            grown = work.store.extend(
                arrays=work.plan.arrays,
                items=work.items.iloc[len(work.store.item_ids) :],
                sigmas=work.plan.settings.sigmas,
                provenance=_provenance(work.plan, backbone, data, request),
            )
            return replace(work, store=grown)
    except Busy:
        # Others are at work on what this process wants too, unless it wants more.
        work = plan_again()
        if work.grows:
            raise
        return work


def _remove_partial_files(output: AnyPath) -> None:
    """Remove what a killed process left under temporary names, while no other process works on the store."""
    if is_remote(output):
        return
    pairs = output.parent.glob(f".{glob.escape(pairs_name(output))}.*.partial")
    for path in [*output.rglob("*.partial"), *pairs]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _create(
    work: Work, backbone: Backbone, data: PreferenceData, output: AnyPath, request: Mapping[str, Any] | None
) -> FeatureStore:
    return FeatureStore.create(
        output,
        arrays=work.plan.arrays,
        items=work.items,
        sigmas=work.plan.settings.sigmas,
        num_blocks=work.plan.spec.architecture.num_blocks,
        run_length=work.plan.run_length,
        settings=work.settings,
        provenance=_provenance(work.plan, backbone, data, request),
    )


def _provenance(
    plan: ExtractionPlan, backbone: Backbone, data: PreferenceData, request: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "streams": list(plan.settings.streams),
        "reductions": list(plan.settings.reductions),
        "revision": backbone.revision,
        "pipeline": plan.spec.family.pipeline,
        "block_lists": [[path, len(backbone.transformer.get_submodule(path))] for path in backbone.block_lists],
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONED},
        "data_settings": dict(data.settings),
        "parameters": plan.spec.architecture.parameters,
        "forward_flops": plan.forward_flops,
        "embedded_timesteps": [backbone.embedded_timestep(sigma) for sigma in plan.settings.sigmas],
        "request": None if request is None else dict(request),
    }


class RunComputer:
    """Computes runs of a store, as one process among those that work on it.

    Attributes:
        work: What the store lacked.
        store: The store.
        fitting: The size of batches that fit, if those of the plan do not.
    """

    def __init__(
        self,
        work: Work,
        backbone: Backbone,
        data: PreferenceData,
        store: FeatureStore,
        kept: KeptInputs | None,
        worker: Worker,
    ) -> None:
        self.work, self.store, self.fitting = work, store, FittingBatches()
        self._backbone, self._data, self._kept, self._worker = backbone, data, kept, worker

    def missing(self) -> dict[int, int]:
        """Return the forwards that each run lacks, by run."""
        return {run: forwards_of(segments) for run, segments in self.work.segments(self.store).items()}

    def is_whole(self, run: int) -> bool:
        """Return whether a run lacks nothing, whoever has computed it."""
        self.store.read_again(run)
        return not self.work.segments_of(run, self.store)

    def claim(self, run: int) -> bool:
        """Claim a run, unless another living process has."""
        return self._worker.claim(run)

    def release(self, run: int) -> None:
        """Give a claim back."""
        self._worker.release(run)

    def compute(self, run: int, advance: Callable[[int], Any] = lambda forwards: None) -> dict[Part, np.ndarray]:
        """Compute what a claimed run lacks, with what the store has of it."""

        def advance_both(forwards: int) -> None:
            advance(forwards)
            self._worker.advance(forwards)

        values = {
            segment: _compute(
                self.work.plan,
                self._backbone,
                self._data,
                self.store,
                self.work.items.iloc[segment.start : segment.stop],
                segment,
                kept=self._kept,
                fitting=self.fitting,
                advance=advance_both,
            )
            for segment in self.work.segments_of(run, self.store)
        }
        return _whole_run(self.store, run, self.store.rows_of_run(run), values)

    def write(self, run: int, values: Mapping[Part, np.ndarray]) -> None:
        """Write a run, and give its claim back.

        Raises:
            UserError: A full disk, or the others have taken this process for dead.
        """
        self._worker.require_alive()
        self.store.write_run(run, values)
        self._worker.release(run)


def _compute_missing(computer: RunComputer) -> int:
    """Compute and write run by run until no run lacks anything; return the number of items computed here."""
    plan, missing, computed = computer.work.plan, computer.missing(), 0
    name = plan.spec.name + (" (random-init)" if plan.settings.random_init else "")
    with progress(sum(missing.values()), name, "forwards") as bar, ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        while missing:
            for run in list(missing):
                if not computer.claim(run):
                    continue
                expected = missing.pop(run)
                if computer.is_whole(run):
                    computer.release(run)
                    bar.update(expected)
                    continue
                computed += sum(s.stop - s.start for s in computer.work.segments_of(run, computer.store))
                values = computer.compute(run, bar.update)
                # A run is written while the next one is computed, and no more than one waits.
                if written is not None:
                    written.result()
                written = writer.submit(computer.write, run, values)
                del values
            if written is not None:
                written.result()
                written = None
            # The others are computing the rest; if one is killed, its run is free again.
            for run in list(missing):
                if computer.is_whole(run):
                    bar.update(missing.pop(run))
            if missing:
                time.sleep(_PAUSE)
    return computed


def _whole_run(
    store: FeatureStore, run: int, items: slice, values: dict[Segment, dict[Part, np.ndarray]]
) -> dict[Part, np.ndarray]:
    """Append what was computed of a run to what the store has of it."""
    record = store.records.get(run, RunRecord())
    parts = dict.fromkeys(part for computed in values.values() for part in computed)
    whole: dict[Part, np.ndarray] = {}
    for part in parts:
        pieces = [computed[part] for computed in values.values() if part in computed]
        # Items that were written before have their part in the store, unless it is what is added.
        if record.has(*part) and record.rows < items.stop - items.start:
            pieces.insert(0, store.read_part(part, run, record.rows))
        whole[part] = np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
    return whole


def _compute(
    plan: ExtractionPlan,
    backbone: Backbone,
    data: PreferenceData,
    store: FeatureStore,
    items: pd.DataFrame,
    segment: Segment,
    *,
    kept: KeptInputs | None,
    fitting: FittingBatches,
    advance: Callable[[int], Any],
) -> dict[Part, np.ndarray]:
    """Compute parts of a segment, whose ``items`` these are."""
    settings = plan.settings
    values = _empty_arrays(plan, segment, len(items))
    with sentence_for_full_memory(backbone, settings.resolution):
        encoded = encode_items(backbone, data, items, settings, kept)
        digests = np.frombuffer(b"".join(encoded.digests), np.uint8).reshape(-1, 16)
        _refuse_changed(store, data, segment, items["item_id"].tolist(), digests)
        columns = _columns(backbone, data, items, digests)
        values |= {part: value for part, value in columns.items() if part in segment.parts}
        _reduce_latents(plan, encoded.latents, values)
        sigmas = [settings.sigmas[s] for s in segment.sigmas]
        position = dict(zip(sigmas, segment.sigmas, strict=True))
        for reading in read_encoded(plan, backbone, encoded, sigmas, _reduction(plan, segment), fitting):
            _copy_out(plan, reading, position[reading.sigma], values)
            advance(len(reading.rows))
    return values


def _empty_arrays(plan: ExtractionPlan, segment: Segment, count: int) -> dict[Part, np.ndarray]:
    """Allocate the features and latents of a segment."""
    values: dict[Part, np.ndarray] = {}
    for spec in plan.arrays:
        axes = () if spec.blocks is None else (len(spec.blocks),)
        for name, s in segment.parts:
            if name == spec.name:
                values[name, s] = np.empty((count, *axes, *spec.shape), spec.dtype)
    return values


def _columns(
    backbone: Backbone, data: PreferenceData, items: pd.DataFrame, digests: np.ndarray
) -> dict[Part, np.ndarray]:
    """Return what is stored of each item beside its features."""
    stamps = b"".join(stamp_digest(data, item_id) for item_id in items["item_id"])
    different = list(dict.fromkeys(items["prompt"]))
    tokens = dict(zip(different, backbone.prompt_tokens(different), strict=True))
    return {
        ("image_digest", 0): digests,
        ("image_stamp", 0): np.frombuffer(stamps, np.uint8).reshape(-1, 16),
        ("prompt_clip_tokens", 0): np.array([tokens[prompt] for prompt in items["prompt"]], dtype=np.int32),
    }


def _refuse_changed(
    store: FeatureStore, data: PreferenceData, segment: Segment, ids: list[str], digests: np.ndarray
) -> None:
    """Refuse to add to items whose picture has changed since the store was planned."""
    record = store.records.get(segment.start // store.run_length)
    if record is None or segment.stop > segment.start // store.run_length * store.run_length + record.rows:
        return
    changed = (store.read_column("image_digest")[segment.start : segment.stop] != digests).any(axis=1)
    if changed.any() and record.has("image_digest", 0):
        item = ids[int(np.argmax(changed))]
        raise UserError(f"{store.path} was made from another picture of item {item!r} ({data.image_of(item)}).")


def _reduction(plan: ExtractionPlan, segment: Segment) -> Reduce:
    """Return the reduction of a block's streams to the features that a segment lacks at any noise level."""
    grid = plan.spec.architecture.token_grid(plan.settings.resolution)
    paths = [name.split("/") for name, _ in segment.parts if name.startswith("features/")]
    streams_read = [stream for stream in plan.settings.streams if any(path[1] == stream for path in paths)]
    reductions = [r for r in plan.settings.reductions if any(path[2].split("_")[0] == r for path in paths)]

    def reduce(block: int, streams: Streams, masks: Masks) -> dict[str, Tensor]:
        reduced: dict[str, Tensor] = {}
        for stream in streams_read:
            tokens = streams[stream]
            if tokens is None:
                continue
            if stream == "image":
                named = reduce_image(tokens, grid, reductions)
            else:
                named = reduce_text(tokens, masks, reductions)
            reduced |= {f"features/{stream}/{name}": value for name, value in named.items()}
        return reduced

    return reduce


def _copy_out(plan: ExtractionPlan, reading: Reading, s: int, values: dict[Part, np.ndarray]) -> None:
    """Copy the reduced streams of one forward off the device: one copy an array, not one a block."""
    for spec in plan.arrays:
        if spec.blocks is not None and (spec.name, s) in values:
            stacked = torch.stack([block[spec.name] for block in reading.blocks if spec.name in block], dim=1)
            values[spec.name, s][reading.batch] = to_stored(stacked.cpu().numpy(), spec.dtype, spec.name)


def _reduce_latents(plan: ExtractionPlan, latents: Tensor, values: dict[Part, np.ndarray]) -> None:
    rows, columns = latents.shape[2:]
    tokens = latents.flatten(2).transpose(1, 2)
    for name, value in reduce_image(tokens, (rows, columns), latent_reductions(plan.settings)).items():
        if (f"latents/{name}", 0) in values:
            values[f"latents/{name}", 0][...] = value.numpy()
