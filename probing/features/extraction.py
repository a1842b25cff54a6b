"""The extraction loop: items in, a feature store out, run by run."""

from __future__ import annotations

import glob
import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from probing.backbones import Conditioning, SD3Backbone
from probing.errors import UserError
from probing.features.inputs import encode_images, encode_prompts
from probing.features.noise import add_noise, item_noise
from probing.features.plan import ExtractionPlan, latent_reductions
from probing.features.reductions import reduce_image, reduce_text
from probing.features.store import FeatureStore, check, repair, to_stored
from probing.features.store.lock import locked
from probing.features.store.store import Part
from probing.features.trace import BlockTrace
from probing.features.work import Segment, Work, plan_work, stamp_digest
from probing.preferences import PreferenceData
from probing.progress import progress

_VERSIONED = ("torch", "diffusers", "transformers", "nnsight", "zarr", "numpy")


@dataclass(frozen=True)
class Extracted:
    """What an extraction did.

    Attributes:
        store: The feature store, complete.
        computed: Items of which features were computed now; of the others all were there.
        mended: What was missing or damaged in the store, a sentence each.
    """

    store: FeatureStore
    computed: int
    mended: tuple[str, ...] = ()


def extract(
    plan: ExtractionPlan,
    backbone: SD3Backbone,
    data: PreferenceData,
    output: str | Path,
    *,
    request: Mapping[str, Any] | None = None,
    work: Work | None = None,
) -> Extracted:
    """Compute what the store at ``output`` lacks of these data, noise levels, streams and reductions.

    Every run of items is computed in the same batches whenever it is computed, so a run that was killed and
    started again ends in the same bytes as an undisturbed one. Items, noise levels, streams and reductions are added
    to a store that is there; pairs are written anew beside it.

    Args:
        plan: What :func:`probing.features.plan.make_plan` laid out for these items.
        backbone: The loaded backbone.
        data: Whose items are extracted; its pairs are written beside the store.
        output: Path of the store; it is made, or continued if it was made with the same settings.
        request: Options that this is made from, as JSON; kept, so that a damaged store can be repaired.
        work: What :func:`probing.features.work.plan_work` found just now, so that pictures are compared once.

    Raises:
        UserError: Other settings, a bad image, a full disk, too little memory, or another process at this store.
    """
    output = Path(output)
    mended = () if work is not None else tuple(mend_cheaply(output))
    if work is None or work.settings["parts"] != backbone.parts:
        work = plan_work(plan, data, output, parts=backbone.parts, device=backbone.device.type)
    store = work.store
    if store is None:
        try:
            store = _create(work, backbone, data, output, request)
        except FileExistsError:
            # Another process was faster.
            work = plan_work(plan, data, output, parts=backbone.parts, device=backbone.device.type)
            store = work.store
    assert store is not None
    computed = 0
    if work.grows or work.segments(store):
        with store.lock():
            _remove_partial_files(output)
            store = FeatureStore.open(output)
            if work.store is not None and store.attributes != work.store.attributes:
                work = plan_work(plan, data, output, parts=backbone.parts, device=backbone.device.type)
            if work.grows:
                new = work.items.iloc[len(store.item_ids) :]
                store = store.extend(
                    arrays=work.plan.arrays,
                    items=new,
                    sigmas=work.plan.settings.sigmas,
                    provenance=_provenance(work.plan, backbone, data, request),
                )
            store.write_pairs(data.pairs)
            computed = _compute_missing(work, backbone, data, store)
    else:
        store.write_pairs(data.pairs)
    return Extracted(store, computed, mended)


def mend_cheaply(output: Path) -> list[str]:
    """Look for lost and cut files, take them back from the records, and say what they were; nothing is read in full."""
    if not output.is_dir() or not any(output.iterdir()):
        return []
    if (problems := check_cheaply(output)) and any(problem.file != _pairs_name(output) for problem in problems):
        with locked(output):
            repair(output, [problem for problem in problems if problem.file != _pairs_name(output)])
    return [str(problem) for problem in problems]


def check_cheaply(output: Path) -> list:
    try:
        return check(output, deep=False)
    except UserError:
        # A foreign folder or another schema: opening it says which.
        return []


def _remove_partial_files(output: Path) -> None:
    """Remove what a killed process left under temporary names; needs the store's lock."""
    for left in [*output.rglob("*.partial"), *output.parent.glob(f".{glob.escape(_pairs_name(output))}.*.partial")]:
        left.unlink(missing_ok=True)


def _pairs_name(output: Path) -> str:
    return output.name + ".pairs.parquet"


def _create(
    work: Work, backbone: SD3Backbone, data: PreferenceData, output: Path, request: Mapping[str, Any] | None
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
    plan: ExtractionPlan, backbone: SD3Backbone, data: PreferenceData, request: Mapping[str, Any] | None
) -> dict[str, Any]:
    return {
        "streams": list(plan.settings.streams),
        "reductions": list(plan.settings.reductions),
        "revision": backbone.revision,
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONED},
        "data_settings": dict(data.settings),
        "parameters": plan.spec.architecture.parameters,
        "forward_flops": plan.forward_flops,
        "request": None if request is None else dict(request),
    }


def _compute_missing(work: Work, backbone: SD3Backbone, data: PreferenceData, store: FeatureStore) -> int:
    """Compute what each run lacks, and write it run by run; returns of how many items."""
    plan, computed = work.plan, 0
    missing = work.segments(store)
    left = sum((s.stop - s.start) * len(s.sigmas) for segments in missing.values() for s in segments)
    name = plan.spec.name + (" (random-init)" if plan.settings.random_init else "")
    with progress(left, name, "forwards") as bar:
        for run, segments in missing.items():
            items = store.rows_of_run(run)
            values = {
                segment: _compute(plan, backbone, data, store, work.items, segment, bar.update) for segment in segments
            }
            store.write_run(run, _whole_run(store, run, items, values))
            computed += sum(segment.stop - segment.start for segment in segments)
    return computed


def _whole_run(
    store: FeatureStore, run: int, items: slice, values: dict[Segment, dict[Part, np.ndarray]]
) -> dict[Part, np.ndarray]:
    """Put what was computed of a run behind what is there of it."""
    record = store.records.get(run)
    rows = 0 if record is None else record.rows
    there = (
        {(name, s) for name, sums in record.checksums.items() for s, has in enumerate(sums) if has is not None}
        if record is not None
        else set()
    )
    parts = dict.fromkeys(part for own in values.values() for part in own)
    whole: dict[Part, np.ndarray] = {}
    for part in parts:
        pieces = [own[part] for own in values.values() if part in own]
        # Items that were written before have their part in the store, unless it is what is added.
        if part in there and rows < items.stop - items.start:
            pieces.insert(0, store.read_part(part, run, rows))
        whole[part] = np.concatenate(pieces) if len(pieces) > 1 else pieces[0]
    return whole


def _compute(
    plan: ExtractionPlan,
    backbone: SD3Backbone,
    data: PreferenceData,
    store: FeatureStore,
    all_items: pd.DataFrame,
    segment: Segment,
    advance: Callable[[int], Any],
) -> dict[Part, np.ndarray]:
    """Compute parts of a segment; the three parts of the backbone take turns on the device."""
    settings = plan.settings
    items = all_items.iloc[segment.start : segment.stop]
    ids = items["item_id"].tolist()
    count = len(ids)
    by_name = {array.name: array for array in plan.arrays}
    values: dict[Part, np.ndarray] = {
        (name, s): np.empty(
            (
                count,
                *(() if by_name[name].blocks is None else (len(by_name[name].blocks or ()),)),
                *by_name[name].shape,
            ),
            by_name[name].dtype,
        )
        for name, s in segment.parts
        if name in by_name
    }
    try:
        with backbone.on_device("text_encoders"):
            conditioning, row_of = encode_prompts(backbone, items["prompt"].tolist())
        with backbone.on_device("vae"):
            encoded = list(encode_images(backbone, data, ids, settings))
        latents = torch.cat([one for one, _ in encoded])
        digests = np.frombuffer(b"".join(d for _, ds in encoded for d in ds), np.uint8).reshape(-1, 16)
        _refuse_changed(store, data, segment, ids, digests)
        for part, value in _columns(backbone, data, items, digests).items():
            if part in segment.parts:
                values[part] = value
        keys = items["prompt_id" if settings.pair_noise == "shared" else "item_id"]
        noise = torch.from_numpy(
            np.stack([item_noise(settings.seed, key, tuple(latents.shape[1:])) for key in keys.tolist()])
        )
        _reduce_latents(plan, latents, values)
        with backbone.on_device("transformer"):
            trace = BlockTrace(backbone.transformer, backbone.blocks_path, backbone.streams_of)
            for start in range(0, count, settings.batch_size):
                batch = slice(start, min(start + settings.batch_size, count))
                rows = conditioning.rows(row_of[batch]).to(backbone.device)
                for s in segment.sigmas:
                    sigma = settings.sigmas[s]
                    noisy = add_noise(latents[batch], noise[batch], sigma)
                    _read_batch(plan, backbone, trace, noisy, rows, sigma, values, (batch, s))
                    advance(batch.stop - batch.start)
    except torch.OutOfMemoryError as error:
        fitting = max(1, settings.batch_size // 2)
        raise UserError(
            f"{backbone.device} ran out of memory with --batch-size {settings.batch_size}; "
            f"try --batch-size {fitting} (with another --output: the batch size is a setting of the store)."
        ) from error
    return values


def _columns(
    backbone: SD3Backbone, data: PreferenceData, items: pd.DataFrame, digests: np.ndarray
) -> dict[Part, np.ndarray]:
    """What is noted of each item beside its features."""
    stamps = b"".join(stamp_digest(data, item_id) for item_id in items["item_id"])
    different = list(dict.fromkeys(items["prompt"]))
    tokens = dict(zip(different, backbone.clip_tokens_of(different), strict=True))
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
    other = (store.read_column("image_digest")[segment.start : segment.stop] != digests).any(axis=1)
    if other.any() and record.has("image_digest", 0):
        item = ids[int(np.argmax(other))]
        raise UserError(f"{store.path} was made from another picture of item {item!r} ({data.image_of(item)}).")


def _read_batch(
    plan: ExtractionPlan,
    backbone: SD3Backbone,
    trace: BlockTrace,
    noisy: Float[Tensor, "item channel row column"],
    conditioning: Conditioning,
    sigma: float,
    values: dict[Part, np.ndarray],
    where: tuple[slice, int],
) -> None:
    """One forward: every asked block, stream and reduction of a batch at one noise level, copied out once."""
    settings = plan.settings
    grid = plan.spec.architecture.token_grid(settings.resolution)
    batch, s = where
    wanted = {name for name, level in values if level == s and name.startswith("features/")}
    streams_read = [stream for stream in settings.streams if any(n.startswith(f"features/{stream}/") for n in wanted)]
    reductions = [r for r in settings.reductions if any(n.split("/")[2].split("_")[0] == r for n in wanted)]

    def reduce(block: int, streams: dict[str, Tensor | None]) -> dict[str, Tensor]:
        reduced: dict[str, Tensor] = {}
        for stream in streams_read:
            tokens = streams[stream]
            if tokens is None:
                continue
            if stream == "image":
                named = reduce_image(tokens, grid, reductions)
            else:
                named = reduce_text(tokens, conditioning.parts, reductions)
            reduced |= {f"features/{stream}/{name}": value for name, value in named.items()}
        return reduced

    blocks = trace.run(backbone.transformer_inputs(noisy, conditioning, sigma), plan.blocks, reduce)
    for array in plan.arrays:
        if array.blocks is not None and (array.name, s) in values:
            # One copy off the device an array, not one a block.
            stacked = torch.stack([found[array.name] for found in blocks if array.name in found], dim=1)
            values[array.name, s][batch] = to_stored(stacked.cpu().numpy(), array.dtype, array.name)


def _reduce_latents(plan: ExtractionPlan, latents: Tensor, values: dict[Part, np.ndarray]) -> None:
    rows, columns = latents.shape[2:]
    tokens = latents.flatten(2).transpose(1, 2)
    for name, value in reduce_image(tokens, (rows, columns), latent_reductions(plan.settings)).items():
        if (f"latents/{name}", 0) in values:
            values[f"latents/{name}", 0][...] = value.numpy()
