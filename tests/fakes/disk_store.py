"""Write a fake store to disk as a feature store."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probing.features import FeatureStore
from probing.features.store import ArraySpec
from probing.features.store.layout import COLUMNS
from tests.fakes.fake_store import CHANNELS, NUM_BLOCKS, FakeStore


def write_store(path, pairs, *, random_init=False, provenance=None, model="fake", seed=0):
    """Write a fake store's features and its pairs to disk."""
    fake = FakeStore(pairs, random_init=random_init, seed=seed + int(random_init))
    arrays = [
        ArraySpec("features/image/mean", tuple(fake.blocks), (CHANNELS,), "float32"),
        ArraySpec("features/text/mean_clip", tuple(fake.blocks[:-1]), (CHANNELS,), "float32"),
        ArraySpec("latents/mean", None, (4,), "float32"),
    ]
    items = len(fake.item_ids)
    store = FeatureStore.create(
        path,
        arrays=arrays,
        items=pd.DataFrame(
            {
                "item_id": fake.item_ids,
                "prompt_id": [item.rsplit("-", 2)[0] for item in fake.item_ids],
                "prompt": "words",
            }
        ),
        sigmas=fake.sigmas,
        num_blocks=NUM_BLOCKS,
        run_length=items,
        settings={"model": model, "data": "planted", "random_init": random_init, "seed": 0},
        provenance=provenance or {},
    )
    values = {("latents/mean", 0): fake.read_latents("mean")}
    values |= {(c.name, 0): np.zeros((items, *c.shape), c.dtype) for c in COLUMNS}
    for stream, reduction in fake.arrays():
        for s, sigma in enumerate(fake.sigmas):
            blocks = [fake.read(stream, reduction, sigma, block) for block in fake.blocks_of(stream)]
            values[f"features/{stream}/{reduction}", s] = np.stack(blocks, axis=1)
    store.write_run(0, values)
    store.write_pairs(pairs)
    return path
