"""The reward curve and its controls: pair accuracy against block."""

from __future__ import annotations

from collections.abc import Sequence
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
    average_draws,
    check_comparable,
    measure_cells,
    measure_latents,
)
from probing.errors import UserError

SHUFFLES = 20


def measure_curve(
    store: FeatureSource,
    pairs: pd.DataFrame,
    *,
    random_init: Sequence[FeatureSource] = (),
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
        random_init: Features of the same items in the same architecture with random weights, a store a draw.
        sites: Which sites; the latents have the same reductions.
        facets: Which facets; all if None.
        recipe: The probe.
        shuffles: Refits of each trained probe to shuffled training choices.
        run: How to run.

    Raises:
        UserError: As :func:`probing.analysis.engine.measure_cells`; or the stores cannot be compared.
    """
    run = run or Run()
    if shuffles < 0 or shuffles == 1:
        raise UserError(f"Got {shuffles} shuffles, expected 0, or 2 and more; 20 are usual.")
    _require_trained(store)
    for draw in random_init:
        _require_random_init(draw)
        # Another seed of the weights is another seed of the noise.
        check_comparable(store, draw, apart_from=("weights", "noise"))
    options: dict[str, Any] = {"facets": facets, "recipe": recipe}
    parts = [measure_cells(store, pairs, sites=sites, shuffles=shuffles, run=run, **options)]
    if random_init:
        draws = [measure_cells(draw, pairs, sites=sites, run=run, **options) for draw in random_init]
        parts.append(average_draws(draws))
    if reductions := sites.latent_reductions_of(store) or store.latent_reductions():
        parts.append(measure_latents(store, pairs, reductions=reductions, run=run, **options))
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
