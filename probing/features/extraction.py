"""The extraction loop: items in, a feature store out, run by run."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from probing.backbones import Conditioning, SD3Backbone
from probing.errors import UserError
from probing.features.inputs import encode_images, encode_prompts
from probing.features.noise import add_noise, item_noise
from probing.features.plan import ExtractionPlan, latent_reductions
from probing.features.prompts import given_prompts
from probing.features.reductions import reduce_image, reduce_text
from probing.features.store import FeatureStore, to_stored
from probing.features.trace import BlockTrace
from probing.preferences import PreferenceData
from probing.preferences.images import RULES

_VERSIONED = ("torch", "diffusers", "transformers", "nnsight", "zarr", "numpy")


@dataclass(frozen=True)
class Extracted:
    """What an extraction did.

    Attributes:
        store: The feature store, complete.
        computed: Items computed now; the others were there.
    """

    store: FeatureStore
    computed: int


def extraction_order(data: PreferenceData) -> pd.DataFrame:
    """Items in the order of the store: prompt groups stay together, so that a prompt is encoded once."""
    first_seen = data.items.groupby("prompt_id", sort=False).ngroup()
    return data.items.iloc[np.argsort(first_seen.to_numpy(), kind="stable")].reset_index(drop=True)


def extract(plan: ExtractionPlan, backbone: SD3Backbone, data: PreferenceData, output: str | Path) -> Extracted:
    """Compute what the store at ``output`` lacks.

    Every run of items is computed in the same batches whenever it is computed, so a run that was killed and
    started again ends in the same bytes as an undisturbed one.

    Args:
        plan: What :func:`probing.features.plan.make_plan` laid out for these items.
        backbone: The loaded backbone.
        data: Whose items are extracted; its pairs are written beside the store.
        output: Path of the store; it is made, or continued if it was made with the same settings.

    Raises:
        UserError: Other settings, a bad image, a full disk, too little memory.
    """
    items = extraction_order(data)
    items["prompt"] = given_prompts(items, data.pairs, plan.settings.prompts, plan.settings.seed)
    store = FeatureStore.create(
        output,
        arrays=plan.arrays,
        item_ids=items["item_id"].tolist(),
        prompt_ids=items["prompt_id"].tolist(),
        sigmas=plan.settings.sigmas,
        num_blocks=plan.spec.architecture.num_blocks,
        run_length=plan.run_length,
        settings=_settings(plan, backbone, data),
        provenance={
            "versions": {name: importlib.metadata.version(name) for name in _VERSIONED},
            "data_settings": dict(data.settings),
            "parameters": plan.spec.architecture.parameters,
            "forward_flops": plan.forward_flops,
        },
    )
    data.pairs.to_parquet(store.pairs_path, index=False)
    written = store.written
    runs = range(math.ceil(len(items) / plan.run_length))
    missing = [run for run in runs if not written[run * plan.run_length : (run + 1) * plan.run_length].all()]
    computed = 0
    with tqdm(
        total=plan.forwards,
        initial=int(written.sum()) * len(plan.settings.sigmas),
        unit="forward",
        desc=plan.spec.name + (" (random-init)" if plan.settings.random_init else ""),
        disable=None,
    ) as bar:
        for run in missing:
            part = items.iloc[run * plan.run_length : (run + 1) * plan.run_length]
            store.write_run(run, _compute_run(plan, backbone, data, part, bar.update))
            computed += len(part)
    return Extracted(store, computed)


def _settings(plan: ExtractionPlan, backbone: SD3Backbone, data: PreferenceData) -> dict[str, Any]:
    """Everything that decides the values in the store."""
    settings = plan.settings
    return {
        **{
            k: list(v) if isinstance(v, tuple) else v
            for k, v in asdict(settings).items()
            if k not in ("sigmas", "blocks", "prompts")
        },
        # Stores made before there was a choice do not say it: they are of own prompts, and are continued.
        **({} if settings.prompts == "own" else {"prompts": settings.prompts}),
        "blocks": list(plan.blocks),
        "model": plan.spec.name,
        "revision": backbone.weights_fingerprint(),
        "config_hash": plan.spec.architecture.config_hash,
        "data": data.name,
        "data_fingerprint": data.fingerprint,
        "noise": "philox4x64 keyed by blake2b(seed, item or prompt id)",
        "image_preparation": RULES,
        "latents": "posterior mode",
        "image_tokens": plan.image_tokens,
        "clip_tokens": plan.spec.architecture.clip_length,
        "device": backbone.device.type,
    }


def _compute_run(
    plan: ExtractionPlan,
    backbone: SD3Backbone,
    data: PreferenceData,
    items: pd.DataFrame,
    advance: Callable[[int], Any],
) -> dict[str, np.ndarray]:
    """Compute every array of one run; the three parts of the backbone take turns on the device."""
    settings = plan.settings
    try:
        with backbone.on_device("text_encoders"):
            conditioning, row_of = encode_prompts(backbone, items["prompt"].tolist())
        with backbone.on_device("vae"):
            latents = torch.cat(list(encode_images(backbone, data, items["item_id"].tolist(), settings)))
        keys = items["prompt_id" if settings.pair_noise == "shared" else "item_id"]
        noise = torch.from_numpy(
            np.stack([item_noise(settings.seed, key, tuple(latents.shape[1:])) for key in keys.tolist()])
        )
        values = {
            a.name: np.empty((len(items), *_axes(a.blocks, settings.sigmas), *a.shape), a.dtype) for a in plan.arrays
        }
        _reduce_latents(plan, latents, values)
        with backbone.on_device("transformer"):
            trace = BlockTrace(backbone.transformer, backbone.blocks_path, backbone.streams_of)
            for start in range(0, len(items), settings.batch_size):
                batch = slice(start, min(start + settings.batch_size, len(items)))
                rows = conditioning.rows(row_of[batch]).to(backbone.device)
                for s, sigma in enumerate(settings.sigmas):
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


def _read_batch(
    plan: ExtractionPlan,
    backbone: SD3Backbone,
    trace: BlockTrace,
    noisy: Float[Tensor, "item channel row column"],
    conditioning: Conditioning,
    sigma: float,
    values: dict[str, np.ndarray],
    where: tuple[slice, int],
) -> None:
    """One forward: every asked block, stream and reduction of a batch at one noise level, copied out once."""
    settings = plan.settings
    grid = plan.spec.architecture.token_grid(settings.resolution)

    def reduce(block: int, streams: dict[str, Tensor | None]) -> dict[str, Tensor]:
        reduced: dict[str, Tensor] = {}
        for stream in settings.streams:
            tokens = streams[stream]
            if tokens is None:
                continue
            if stream == "image":
                named = reduce_image(tokens, grid, settings.reductions)
            else:
                named = reduce_text(tokens, conditioning.parts, settings.reductions)
            reduced |= {f"features/{stream}/{name}": value for name, value in named.items()}
        return reduced

    blocks = trace.run(backbone.transformer_inputs(noisy, conditioning, sigma), plan.blocks, reduce)
    batch, s = where
    for array in plan.arrays:
        if array.blocks is not None:
            # One copy off the device an array, not one a block.
            stacked = torch.stack([found[array.name] for found in blocks if array.name in found], dim=1)
            values[array.name][batch, s] = to_stored(stacked.cpu().numpy(), array.dtype, array.name)


def _reduce_latents(plan: ExtractionPlan, latents: Tensor, values: dict[str, np.ndarray]) -> None:
    rows, columns = latents.shape[2:]
    tokens = latents.flatten(2).transpose(1, 2)
    for name, value in reduce_image(tokens, (rows, columns), latent_reductions(plan.settings)).items():
        values[f"latents/{name}"][...] = value.numpy()


def _axes(blocks: tuple[int, ...] | None, sigmas: tuple[float, ...]) -> tuple[int, ...]:
    return () if blocks is None else (len(sigmas), len(blocks))
