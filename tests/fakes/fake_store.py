"""A store in memory whose signal is planted in known blocks."""

from __future__ import annotations

import hashlib
import zlib

import numpy as np
import pandas as pd
from scipy.special import expit

PROMPTS = {"train": 300, "test": 150}
CHANNELS = 10
NUM_BLOCKS = 6
FIRST_WITH_SIGNAL = {"image": 3, "text": 2}


def make_pairs(seed: int = 0) -> pd.DataFrame:
    """Two pairs a prompt, one of each facet, with a known reward for each item."""
    rng = np.random.default_rng(seed)
    rows = []
    for split, prompts in PROMPTS.items():
        for index in range(prompts):
            for facet in ("alignment", "quality"):
                rewards = rng.normal(size=2) * 2
                probability = float(expit(rewards[0] - rewards[1]))
                name = f"{split}{index:03d}"
                rows.append(
                    {
                        "pair_id": f"{name}-{facet}",
                        "prompt_id": name,
                        "first": f"{name}-{facet}-a",
                        "second": f"{name}-{facet}-b",
                        "choice": float(rng.random() < probability),
                        "split": split,
                        "facet": facet,
                        "reward_first": rewards[0],
                        "reward_second": rewards[1],
                        "probability": probability,
                    }
                )
    return pd.DataFrame(rows)


def digest_of(*content) -> str:
    """Return a digest of everything that determines a fake store's features."""
    return hashlib.sha256(repr(content).encode()).hexdigest()


class FakeStore:
    """Noise everywhere; from ``FIRST_WITH_SIGNAL`` on, one direction of a trained store carries the reward.

    The image stream carries both facets, the text stream alignment alone.
    """

    def __init__(self, pairs: pd.DataFrame, *, random_init: bool = False, seed: int = 0, order=None) -> None:
        ids = pairs[["first", "second"]].to_numpy().ravel()
        rewards = pairs[["reward_first", "reward_second"]].to_numpy().ravel()
        order = np.arange(len(ids)) if order is None else order
        self.item_ids, self._rewards = ids[order].astype(str), rewards[order]
        self._is_alignment = np.array(["alignment" in item for item in self.item_ids])
        self._order, self._seed = order, seed
        self.sigmas, self.blocks, self.num_blocks = [0.005, 0.6], list(range(NUM_BLOCKS)), NUM_BLOCKS
        self.attributes = {"model": "fake", "data": "planted", "random_init": random_init, "resolution": 64}
        self.written = np.ones(len(ids), dtype=bool)
        self.digest = digest_of(seed, self.attributes, self.item_ids.tolist(), self._rewards.tolist())

    def arrays(self):
        return [("image", "mean"), ("text", "mean_clip")]

    def blocks_of(self, stream):
        return self.blocks if stream == "image" else self.blocks[:-1]

    def latent_reductions(self):
        return ["mean"]

    def read_latents(self, reduction):
        return self._noise("latents", 4)

    def read(self, stream, reduction, sigma, block):
        features = self._noise(f"{stream}/{reduction}/{sigma}/{block}", CHANNELS)
        if not self.attributes["random_init"] and block >= FIRST_WITH_SIGNAL[stream]:
            carried = 1.0 if stream == "image" else self._is_alignment
            features[:, 4] += carried * self._rewards * (1.5 if sigma < 0.1 else 0.8)
        return features

    def _noise(self, name, channels):
        rng = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
        return rng.normal(size=(len(self.item_ids), channels)).astype(np.float32)[self._order]
