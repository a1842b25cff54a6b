"""Stores in memory with a planted signal: how strongly each site carries each part of the reward."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.special import expit

from tests.fakes.fake_store import digest_of

CHANNELS = 8
PARTS = 2
"""Number of independent parts that sum to a reward."""

Plant = Callable[[str, float, int], tuple[float, ...]]
"""Maps stream, sigma and block to the strength of each part of the reward there."""


def planted_pairs(*, train: int = 300, test: int = 200, seed: int = 0, strength: float = 2.0) -> pd.DataFrame:
    """One pair a prompt in one facet; annotators follow the sum of an item's ``parts``."""
    rng = np.random.default_rng(seed)
    rows = []
    for split, prompts in (("train", train), ("test", test)):
        for index in range(prompts):
            parts = rng.normal(size=(2, PARTS)) * strength / np.sqrt(PARTS)
            rewards = parts.sum(axis=1)
            probability = float(expit(rewards[0] - rewards[1]))
            name = f"{split}{index:04d}"
            rows.append(
                {
                    "pair_id": name,
                    "prompt_id": name,
                    "first": f"{name}-a",
                    "second": f"{name}-b",
                    "choice": float(rng.random() < probability),
                    "split": split,
                    "facet": "all",
                    "probability": probability,
                    "parts_first": parts[0],
                    "parts_second": parts[1],
                }
            )
    return pd.DataFrame(rows)


class PlantedStore:
    """Noise in every channel; each part of the reward in one channel, at its planted strength.

    Args:
        pairs: Pairs of :func:`planted_pairs`.
        plant: Strength of each part at a site.
        num_blocks: Blocks of the image stream; the text stream has one less.
        sigmas: Noise levels.
        seed: Seed of the backbone's features.
        draw: Seed of the drawn noise, if ``noise`` is above 0; differs between extraction seeds.
        noise: Standard deviation of the drawn noise at sigma 1.
        shared: Whether the two items of a pair share the drawn noise.
        attributes: Further attributes.
    """

    def __init__(
        self,
        pairs: pd.DataFrame,
        plant: Plant,
        *,
        num_blocks: int = 8,
        sigmas: tuple[float, ...] = (0.1,),
        streams: tuple[str, ...] = ("image",),
        width: int = CHANNELS,
        seed: int = 0,
        draw: int = 0,
        noise: float = 0.0,
        shared: bool = False,
        **attributes,
    ) -> None:
        self.item_ids = pairs[["first", "second"]].to_numpy().ravel().astype(str)
        self._parts = np.stack(pairs[["parts_first", "parts_second"]].to_numpy().ravel())
        self._plant, self._width, self._seed, self._streams = plant, width, seed, streams
        self._draw, self._noise, self._shared = draw, noise, shared
        self.sigmas, self.blocks, self.num_blocks = list(sigmas), list(range(num_blocks)), num_blocks
        self.written = np.ones(len(self.item_ids), dtype=bool)
        self.attributes = {
            "model": "planted",
            "data": "planted",
            "random_init": False,
            "resolution": 64,
            "seed": draw,
            "pair_noise": "shared" if shared else "independent",
            "config_hash": f"{num_blocks}x{width}",
            "parameters": num_blocks * width**2,
            "forward_flops": 100 * num_blocks * width**2,
            **attributes,
        }
        sites = [(stream, sigma, block) for stream in streams for sigma in sigmas for block in self.blocks]
        self.digest = digest_of(seed, width, noise, self.attributes, [plant(*site) for site in sites])

    def arrays(self):
        return [(stream, "mean") for stream in self._streams]

    def blocks_of(self, stream):
        return self.blocks if stream == "image" else self.blocks[:-1]

    def latent_reductions(self):
        return ["mean"]

    def read_latents(self, reduction):
        return self._normal("latents", 4)

    def read(self, stream, reduction, sigma, block):
        features = self._normal(f"{stream}/{sigma}/{block}", self._width)
        for part, strength in enumerate(self._plant(stream, sigma, block)):
            features[:, part] += strength * self._parts[:, part]
        if self._noise:
            drawn = self._normal(f"draw{self._draw}/{sigma}", self._width)
            if self._shared:
                drawn = np.repeat(drawn[::2], 2, axis=0)
            features += sigma * self._noise * drawn
        return features

    def _normal(self, name, channels):
        rng = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
        return rng.normal(size=(len(self.item_ids), channels)).astype(np.float32)
