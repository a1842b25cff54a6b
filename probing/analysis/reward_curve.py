"""The reward curve with its controls: pair accuracy against block."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from probing.analysis.cells import fit_cells, fit_latents
from probing.analysis.recipe import LOGISTIC, Recipe
from probing.analysis.results import CellResults
from probing.analysis.source import FeatureSource, different_inputs
from probing.errors import UserError

SHUFFLES = 3
_SAME = ("model", "config_hash", "resolution", "resize", "background", "pair_noise", "seed")
"""What a control's store must share with the trained one, where both say it."""


def reward_curve(
    store: FeatureSource,
    pairs: pd.DataFrame,
    *,
    random_init: FeatureSource | None = None,
    streams: Sequence[str] | None = None,
    reductions: Sequence[str] | None = None,
    sigmas: Sequence[float] | None = None,
    blocks: Sequence[int] | None = None,
    facets: Sequence[str] | None = None,
    recipe: Recipe = LOGISTIC,
    shuffles: int = SHUFFLES,
    seed: int = 0,
    workers: int = 1,
    journal: Path | None = None,
    progress: bool = True,
) -> CellResults:
    """Measure every cell of a trained backbone, and beside it the random-initialised backbone, the pooled latents
    and shuffled choices.

    Args:
        store: Features of the trained backbone.
        pairs: As for :func:`probing.analysis.fit_cells`.
        random_init: Features of the same items in the same architecture with fresh weights.
        streams: Which streams; all of the trained store if None. Likewise the next four.
        reductions: Which reductions.
        sigmas: Which noise levels.
        blocks: Which blocks.
        facets: Which facets.
        recipe: The probe and its scaling.
        shuffles: How many shuffles of the training choices; their seeds count up from ``seed``. A probe that has
            learned nothing points anywhere, so a single shuffle can score away from one half where few directions
            of the features matter; only their mean must be at chance.
        seed: Of shuffles and bootstrap.
        workers: As for :func:`probing.analysis.fit_cells`.
        journal: As for :func:`probing.analysis.fit_cells`.
        progress: Whether to show progress bars, on a terminal.

    Raises:
        UserError: As :func:`probing.analysis.fit_cells`; or the stores cannot be compared.
    """
    if shuffles < 0:
        raise UserError(f"Got {shuffles} shuffles, expected 0 or more; 3 is usual.")
    if store.attributes.get("random_init"):
        raise UserError("The store given as trained holds a random-initialised backbone; give it as the control.")
    if (prompts := store.attributes.get("prompts", "own")) != "own":
        raise UserError(f"The store given as trained was extracted with {prompts} prompts; give one of own prompts.")
    if random_init is not None:
        _check_fresh(random_init)
        check_comparable(store, random_init)

    def cells(source: FeatureSource, control: str = "trained", seed: int = seed) -> CellResults:
        return fit_cells(
            source,
            pairs,
            streams=streams,
            reductions=reductions,
            sigmas=sigmas,
            blocks=blocks,
            facets=facets,
            control=control,
            recipe=recipe,
            seed=seed,
            workers=workers,
            journal=journal,
            progress=progress,
        )

    parts = [cells(store)]
    if random_init is not None:
        parts.append(cells(random_init))
    latents = [name for name in store.latent_reductions() if reductions is None or name in reductions]
    if names := latents or store.latent_reductions():
        parts.append(
            fit_latents(
                store,
                pairs,
                reductions=names,
                facets=facets,
                recipe=recipe,
                seed=seed,
                workers=workers,
                journal=journal,
                progress=progress,
            )
        )
    parts += [cells(store, "shuffled", seed + shuffle) for shuffle in range(shuffles)]
    return CellResults.join(*parts)


def _check_fresh(fresh: FeatureSource) -> None:
    if not fresh.attributes.get("random_init"):
        raise UserError(
            "The store given as control holds trained weights; make one with probing.extract --random-init."
        )
    if (prompts := fresh.attributes.get("prompts", "own")) != "own":
        raise UserError(f"The store given as control was extracted with {prompts} prompts; give one of own prompts.")


def check_comparable(trained: FeatureSource, control: FeatureSource) -> None:
    """Refuse a control's store that differs in more than what makes it one.

    Raises:
        UserError: With what differs.
    """
    different = [
        f"{key} is {trained.attributes[key]!r} and {control.attributes[key]!r}"
        for key in _SAME
        if key in trained.attributes
        and key in control.attributes
        and trained.attributes[key] != control.attributes[key]
    ]
    if (inputs := different_inputs(trained, control)) is not None:
        different.append(inputs)
    if different:
        raise UserError(
            f"The two stores differ in more than their weights or prompts: {'; '.join(different)}; "
            f"extract both with the same settings."
        )
