"""Extract features of items into a store, run by run."""

from __future__ import annotations

import glob
import importlib.metadata
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
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
        output: AnyPath of the store; it is made, or continued if it was made with the same settings.
        request: Options of the command, as JSON; kept, so that a damaged store can be repaired.
        work: By :func:`probing.features.work.plan_work` just before, so that pictures are compared once.
        kept: Latents and prompts of earlier extractions, to be read and added to.

    Raises:
        UserError: Other settings, a bad image, a full disk, too little memory, or additions while others are at work.
    """
    output = path_of(output)
    leases = Leases(output)

    def plan_again() -> Work:
        return plan_work(plan, data, output, parts=backbone.parts, device=backbone.device.type)

    notes = () if work is not None else tuple(repair_quickly(output))
    if work is None or work.settings["parts"] != backbone.parts:
        work = plan_again()
    while True:
        work = _with_store(work, plan_again, leases, backbone, data, output, request)
        assert work.store is not None
        if not work.segments():
            leases.tidy()
            work.store.write_pairs(data.pairs)
            return Extracted(work.store, 0, notes)
        with leases.joined(work.plan.spec.name, work.forwards()) as worker:
            store = FeatureStore.open(output)
            if store.attributes != work.store.attributes:
                # Another process has added to it meanwhile.
                work = plan_again()
                continue
            store.write_pairs(data.pairs)
            computed, size = _compute_missing(work, backbone, data, store, kept, worker)
        if size is not None:
            notes = (*notes, f"batches of {plan.settings.batch_size} did not fit into memory: read by {size}")
        return Extracted(store, computed, notes)


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


def _compute_missing(
    work: Work, backbone: Backbone, data: PreferenceData, store: FeatureStore, kept: KeptInputs | None, worker: Worker
) -> tuple[int, int | None]:
    """Compute what each run lacks, and write it run by run, until no run lacks anything.

    Returns:
        The number of items computed here, and the size of batches that fitted if those of the plan did not.
    """
    plan, computed, fitting = work.plan, 0, FittingBatches()
    missing = {run: forwards_of(segments) for run, segments in work.segments(store).items()}
    name = plan.spec.name + (" (random-init)" if plan.settings.random_init else "")

    def write(run: int, values: dict[Part, np.ndarray]) -> None:
        worker.require_alive()
        store.write_run(run, values)
        worker.release(run)

    with progress(sum(missing.values()), name, "forwards") as bar, ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None

        def advance(forwards: int) -> None:
            bar.update(forwards)
            worker.advance(forwards)

        while missing:
            for run in list(missing):
                if not worker.claim(run):
                    continue
                expected = missing.pop(run)
                store.read_again(run)
                segments = work.segments_of(run, store)
                if not segments:
                    worker.release(run)
                    bar.update(expected)
                    continue
                values = {
                    segment: _compute(
                        plan,
                        backbone,
                        data,
                        store,
                        work.items.iloc[segment.start : segment.stop],
                        segment,
                        kept=kept,
                        fitting=fitting,
                        advance=advance,
                    )
                    for segment in segments
                }
                # A run is written while the next one is computed, and no more than one waits.
                if written is not None:
                    written.result()
                written = writer.submit(write, run, _whole_run(store, run, store.rows_of_run(run), values))
                del values
                computed += sum(segment.stop - segment.start for segment in segments)
            if written is not None:
                written.result()
                written = None
            # The others are computing the rest; if one is killed, its run is free again.
            for run in list(missing):
                store.read_again(run)
                if not work.segments_of(run, store):
                    bar.update(missing.pop(run))
            if missing:
                time.sleep(_PAUSE)
    return computed, fitting.size


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
