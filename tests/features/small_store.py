"""A store of a few items with its pairs, small enough for all kinds of damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from probing.features.store import ArraySpec, FeatureStore
from probing.features.store.layout import COLUMNS

ARRAYS = (
    ArraySpec("features/image/mean", (0, 1), (2,), "float32"),
    ArraySpec("features/text/mean_clip", (0,), (2,), "float32"),
    ArraySpec("latents/mean", None, (2,), "float32"),
)
ITEMS, RUN, SIGMAS = 5, 3, (0.005, 0.5)


def make_small_store(path: Path, *, seed: int = 0) -> FeatureStore:
    rng = np.random.default_rng(seed)
    items = pd.DataFrame(
        {
            "item_id": [f"item{i}" for i in range(ITEMS)],
            "prompt_id": [f"prompt{i // 2}" for i in range(ITEMS)],
            "prompt": [f"σ words {i // 2}" for i in range(ITEMS)],
        }
    )
    store = FeatureStore.create(
        path,
        arrays=ARRAYS,
        items=items,
        sigmas=SIGMAS,
        num_blocks=2,
        run_length=RUN,
        settings={"model": "tiny-σ", "seed": 0, "scale": 1e-05},
        provenance={"versions": {"zarr": "3"}, "request": None},
    )
    for run in store.runs:
        store.write_run(run, random_values(store, run, rng, 50))
    store.write_pairs(
        pd.DataFrame(
            {
                "pair_id": ["a", "b"],
                "first": ["item0", "item2"],
                "second": ["item1", "item3"],
                "choice": [1.0, 0.5],
                "split": ["train", "test"],
            }
        )
    )
    return store


def random_values(store: FeatureStore, run: int, rng: np.random.Generator, scale: float) -> dict:
    """Return random values for every part of a run."""
    rows = store.rows_of_run(run)
    values = {}
    for array in (*store.specs, *COLUMNS):
        blocks = () if array.blocks is None else (len(array.blocks),)
        for sigma in array.sigmas(len(store.sigmas)):
            drawn = rng.normal(size=(rows.stop - rows.start, *blocks, *array.shape)) * scale
            values[array.name, sigma] = drawn.astype(array.dtype)
    return values


def everything(path: Path) -> dict:
    """Return all numbers and names that commands read from a store."""
    store = FeatureStore.open(path)
    content: dict = {
        "digest": store.digest,
        "items": store.item_ids.tolist(),
        "prompts": store.prompt_ids.tolist(),
        "sigmas": store.sigmas,
        "blocks": store.blocks,
        "num_blocks": store.num_blocks,
        "written": store.written.tolist(),
        "arrays": store.arrays(),
        "settings": {k: v for k, v in store.attributes.items() if k != "documents"},
        "pairs": store.read_pairs().to_dict("list"),
    }
    for stream, reduction in store.arrays():
        for sigma in store.sigmas:
            for block in store.blocks_of(stream):
                content[stream, reduction, sigma, block] = store.read(stream, reduction, sigma, block).tolist()
    content["latents"] = [store.read_latents(name).tolist() for name in store.latent_reductions()]
    return content
