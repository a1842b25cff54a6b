"""Directions of a block's features along which a probe reads a reward, and those of controls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.analysis.engine import SHUFFLED, FeatureSource, Site, facets_of, read_site
from probing.probes import make_probe

TRAINED, RANDOM, RANDOM_INIT = "trained", "random", "random-init"
"""Controls of the directions, beside :data:`probing.analysis.engine.SHUFFLED`."""


@dataclass(frozen=True)
class Direction:
    """A direction in the units of a block's features.

    Attributes:
        block: Block.
        facet: Facet that the probe reads.
        probe: Name of the probe whose ``coef_`` it is.
        control: ``trained``; ``shuffled`` (training choices exchanged at random), ``random`` (normal numbers),
            ``random-init`` (the probe of a random-initialised backbone); all have the trained one's length.
        seed: Of the control.
        vector: (channel,). Its length is one standard deviation, over items, of the trained probe's reading.
    """

    block: int
    facet: str
    probe: str
    control: str
    seed: int
    vector: Float[np.ndarray, " channel"]


def directions(
    store: FeatureSource,
    pairs: pd.DataFrame,
    site: Site,
    facet: str,
    probe: str,
    *,
    seeds: int = 1,
    random_init: FeatureSource | None = None,
) -> Iterator[Direction]:
    """Find the direction of a probe at one site, and those of its controls.

    Args:
        store: Features of the backbone.
        pairs: The pairs; those of split ``train`` are used.
        site: Where features are read; a reduction over tokens that adding to every token moves by as much: ``mean``.
        facet: Facet of the pairs.
        probe: Name in :data:`probing.probes.PROBES` of a linear probe.
        seeds: Number of shuffled and of random directions.
        random_init: Features of the same backbone with fresh weights.

    Raises:
        UserError: As :func:`probing.analysis.engine.facets_of`.
    """
    features = read_site(store, site)
    of_facet = facets_of(store, pairs, [facet])[0]
    training = features[of_facet.training_rows].astype(np.float64)
    differences, choices, prompts = of_facet.train.differences(features), of_facet.train.choices, of_facet.train.prompts

    def read(x: Float[np.ndarray, "pair channel"], y: Float[np.ndarray, " pair"]) -> Float[np.ndarray, " channel"]:
        coefficients = make_probe(probe).fit(x, y, groups=prompts).coef_
        return coefficients / max(float(np.linalg.norm(coefficients)), np.finfo(np.float64).tiny)

    unit = read(differences, choices)
    length = float((training @ unit).std())

    def direction(control: str, seed: int, vector: Float[np.ndarray, " channel"]) -> Direction:
        return Direction(site.block, facet, probe, control, seed, length * vector)

    yield direction(TRAINED, 0, unit)
    for seed in range(seeds):
        rng = np.random.default_rng([seed, site.block])
        yield direction(
            SHUFFLED, seed, read(differences, np.where(rng.random(len(choices)) < 0.5, choices, 1 - choices))
        )
        yield direction(RANDOM, seed, random_direction(len(unit), rng))
    if random_init is not None:
        of_control = facets_of(random_init, pairs, [facet])[0].train
        fresh = read_site(random_init, site)
        yield direction(RANDOM_INIT, 0, read(of_control.differences(fresh), of_control.choices))


def random_direction(channels: int, rng: np.random.Generator) -> Float[np.ndarray, " channel"]:
    """Draw a unit vector without the part that is equal in all channels, which layer norm takes away."""
    normal = rng.normal(size=(channels,))
    normal -= normal.mean()
    return normal / np.linalg.norm(normal)
