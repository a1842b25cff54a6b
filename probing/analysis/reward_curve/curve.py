"""The reward curve and its controls: pair accuracy against block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from probing.analysis.engine import (
    ALL,
    LOGISTIC,
    CellResults,
    FeatureSource,
    Recipe,
    Run,
    Sites,
    StoreIdentity,
    check_comparable,
    measure_cells,
    measure_latents,
)
from probing.errors import UserError

SHUFFLES = 3


def measure_curve(
    store: FeatureSource,
    pairs: pd.DataFrame,
    *,
    random_init: FeatureSource | None = None,
    sites: Sites = ALL,
    facets: Sequence[str] | None = None,
    recipe: Recipe = LOGISTIC,
    shuffles: int = SHUFFLES,
    run: Run | None = None,
) -> CellResults:
    """Measure every cell of a trained backbone, of a random-initialised one, of the latents and of shuffled choices.

    Args:
        store: Features of the trained backbone.
        pairs: As for :func:`probing.analysis.engine.measure_cells`.
        random_init: Features of the same items in the same architecture with random weights.
        sites: Which sites; the latents have the same reductions.
        facets: Which facets; all if None.
        recipe: The probe.
        shuffles: Number of shuffles of the training choices; their seeds count up from the run's. A probe that has
            learned nothing has a random direction, so a single shuffle can score away from one half if few directions
            of the features matter; only their mean must be at chance.
        run: How to run.

    Raises:
        UserError: As :func:`probing.analysis.engine.measure_cells`; or the stores cannot be compared.
    """
    run = run or Run()
    if shuffles < 0:
        raise UserError(f"Got {shuffles} shuffles, expected 0 or more; 3 is usual.")
    _require_trained(store)
    if random_init is not None:
        _require_random_init(random_init)
        check_comparable(store, random_init, apart_from=("weights",))
    options: dict[str, Any] = {"facets": facets, "recipe": recipe}
    parts = [measure_cells(store, pairs, sites=sites, run=run, **options)]
    if random_init is not None:
        parts.append(measure_cells(random_init, pairs, sites=sites, run=run, **options))
    if reductions := sites.latent_reductions_of(store) or store.latent_reductions():
        parts.append(measure_latents(store, pairs, reductions=reductions, run=run, **options))
    for shuffle in range(shuffles):
        seeded = replace(run, seed=run.seed + shuffle)
        parts.append(measure_cells(store, pairs, sites=sites, shuffled=True, run=seeded, **options))
    return CellResults.join(*parts)


def _require_trained(store: FeatureSource) -> None:
    identity = StoreIdentity(store)
    if identity.random_init:
        raise UserError("The store given as trained holds a random-initialised backbone; give it as the control.")
    _require_own_prompts(identity, "trained")


def _require_random_init(store: FeatureSource) -> None:
    identity = StoreIdentity(store)
    if not identity.random_init:
        raise UserError(
            "The store given as control holds trained weights; make one with probing.extract --random-init."
        )
    _require_own_prompts(identity, "control")


def _require_own_prompts(identity: StoreIdentity, role: str) -> None:
    if identity.prompt_rule != "own":
        raise UserError(
            f"The store given as {role} was extracted with {identity.prompt_rule} prompts; give one of own prompts."
        )
