"""Block × block matrices with planted stages, in the form of the measurement."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass

import numpy as np

Site = namedtuple("Site", "source sigma step stream part measure")

SUBJECT = {
    "model": "fake",
    "data": "planted",
    "split": "train",
    "control": "trained",
    "steps": 40,
    "guidance": 4.5,
    "revision": "r",
    "config_hash": "c",
    "data_fingerprint": "d",
    "resolution": 64,
    "extraction_seed": 0,
    "package_version": "0",
}
LENGTHS = (2, 3, 1, 4)


@dataclass(frozen=True)
class Matrices:
    site: Site
    blocks: tuple[int, ...]
    prompt_ids: np.ndarray
    items: np.ndarray
    values: np.ndarray


def planted(lengths=LENGTHS, *, site=None, within=0.94, across=0.73, noise=0.02, prompts=20, seed=0) -> Matrices:
    """Plant runs of similar blocks, with noise in each prompt."""
    label = np.repeat(range(len(lengths)), lengths)
    rng = np.random.default_rng(seed)
    spread = rng.normal(size=(prompts, len(label), len(label))) * noise
    values = np.where(label[:, None] == label, within, across) + (spread + spread.transpose(0, 2, 1)) / 2
    values[:, range(len(label)), range(len(label))] = 1.0
    site = site or Site("images", 0.005, None, "image", "all", "cka")
    ids = np.array([f"prompt{i}" for i in range(prompts)])
    return Matrices(site, tuple(range(len(label))), ids, np.full(prompts, 2), values)


def measured() -> list[Matrices]:
    """Two measures on images at two levels and along a trajectory; no stages in the second measure."""
    drift = 0.9 - 0.02 * np.abs(np.arange(10)[:, None] - np.arange(10))
    matrices = []
    for seed, (source, sigma, step) in enumerate(
        [("images", 0.005, None), ("images", 0.6, None), ("trajectory", 1.0, 0), ("trajectory", 0.03, 39)]
    ):
        one = planted(site=Site(source, sigma, step, "image", "all", "cka"), seed=seed)
        even = planted((10,), site=Site(source, sigma, step, "image", "all", "cosine"), seed=seed)
        values = even.values - 0.94 + drift
        values[:, range(10), range(10)] = 1.0
        matrices += [one, Matrices(even.site, even.blocks, even.prompt_ids, even.items, values)]
    return matrices
