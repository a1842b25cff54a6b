"""The reward curve with everything derived from its cells: comparisons, measures, blocks, rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pandas as pd

from probing.analysis.engine import (
    ALL,
    LOGISTIC,
    CellResults,
    Context,
    FeatureSource,
    Recipe,
    Run,
    Sites,
    StoreIdentity,
    Tables,
    measure_cells,
)
from probing.analysis.engine.table_input import TableInput, loaded
from probing.analysis.published import add_published_curve
from probing.analysis.reward_curve.blocks import DELTA, compare_blocks
from probing.analysis.reward_curve.comparisons import compare
from probing.analysis.reward_curve.curve import SHUFFLES, measure_curve
from probing.analysis.reward_curve.linearity import compare_probes
from probing.analysis.reward_curve.massive import massive_activations
from probing.analysis.reward_curve.measures import measures
from probing.analysis.reward_curve.references import measure_reference
from probing.analysis.reward_curve.rewards import best_rewards
from probing.errors import UserError
from probing.preferences.rewards import read_rewards

TABLES = ("reward_curve", "comparisons", "outcomes", "margins", "measures", "blocks", "massive", "rewards")
"""Always measured; ``linearity`` on request."""


@dataclass(frozen=True)
class RewardCurveSettings:
    """Measurements beyond the trained cells.

    Attributes:
        shuffles: Refits of each trained probe to shuffled training choices; 0, or 2 and more.
        delta: Smallest difference of accuracy that matters, in comparisons of blocks and probes; 0.01 is one point.
        linearity: A network to fit on the trained cells too, to test whether it reads more than the probe.
        references: Other models' rewards of the same items, as NAME=FILE (.csv, .parquet or .jsonl with item_id,
            reward).

    Raises:
        UserError: A delta that is not above 0, or a number of shuffles without an interval.
    """

    shuffles: int = SHUFFLES
    delta: float = DELTA
    linearity: Literal["mlp", "mlp_paper", "attention"] | None = None
    references: Mapping[str, TableInput] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.delta > 0:
            raise UserError(f"Got a delta of {self.delta}, expected a number above 0; 0.01 is one point.")
        if self.shuffles < 0 or self.shuffles == 1:
            raise UserError(f"Got {self.shuffles} shuffles, expected 0, or 2 and more; 20 are usual.")
        rewards = {
            name: read_rewards(Path(table)) if isinstance(table, str | Path) else table
            for name, table in self.references.items()
        }
        object.__setattr__(self, "references", rewards)


def measure_reward_curve(
    stores: Sequence[FeatureSource],
    pairs: pd.DataFrame,
    settings: RewardCurveSettings | None = None,
    *,
    sites: Sites = ALL,
    facets: Sequence[str] | None = None,
    recipe: Recipe = LOGISTIC,
    run: Run | None = None,
) -> dict[str, pd.DataFrame]:
    """Measure the reward curve of a trained backbone with its controls and references.

    Args:
        stores: The trained backbone's, and optionally those of the same items in the same architecture with random
            weights, one a draw.
        pairs: As for :func:`probing.analysis.engine.measure_cells`.
        settings: Shuffles, references, and the smallest difference that matters.
        sites: Which sites.
        facets: Which facets; all if None.
        recipe: The probe.
        run: How to run.

    Returns:
        The tables :data:`TABLES`, and ``linearity`` if requested.

    Raises:
        UserError: As :func:`probing.analysis.reward_curve.curve.measure_curve`.
    """
    run, settings = run or Run(), settings or RewardCurveSettings()
    trained, random_init = _roles(stores)
    # Validate references before the slow fits.
    references = [
        measure_reference(name, loaded(rewards), trained, pairs, facets=facets, seed=run.seed)
        for name, rewards in settings.references.items()
    ]
    curve = measure_curve(
        trained,
        pairs,
        random_init=random_init,
        sites=sites,
        facets=facets,
        recipe=recipe,
        shuffles=settings.shuffles,
        run=run,
    )
    results = CellResults.join(curve, *references)
    train = pairs[pairs["split"] == "train"]
    values = (
        add_published_curve(results.table),
        compare(results, seed=run.seed),
        results.outcomes,
        results.margins,
        measures(results, pairs, seed=run.seed),
        compare_blocks(results, delta=settings.delta),
        massive_activations(
            trained, item_ids=pd.unique(train[["first", "second"]].to_numpy().ravel()).tolist(), progress=run.progress
        ),
        best_rewards(trained, pairs, results.table, recipe, run),
    )
    tables = dict(zip(TABLES, values, strict=True))
    if settings.linearity is not None:
        network = replace(recipe, probe=settings.linearity, scaling="standard", code_length=False)
        of_network = measure_cells(trained, pairs, sites=sites, facets=facets, recipe=network, run=run)
        tables["linearity"] = compare_probes(results.trained, of_network, margin=settings.delta)
    return tables


def _roles(stores: Sequence[FeatureSource]) -> tuple[FeatureSource, list[FeatureSource]]:
    """Return the trained store and the random-initialised ones."""
    trained = [store for store in stores if not StoreIdentity(store).random_init]
    random_init = [store for store in stores if StoreIdentity(store).random_init]
    if len(trained) != 1:
        raise UserError(
            f"Got {len(trained)} stores of trained weights and {len(random_init)} of random ones; give one of trained "
            f"weights, and those made with probing.extract --random-init beside it."
        )
    return trained[0], random_init


def run_reward_curve(context: Context, settings: RewardCurveSettings) -> Tables:
    """Measure the reward curve of the trained store."""
    return measure_reward_curve(context.stores, context.pairs, settings, **context.selections)


def tables_reward_curve(settings: RewardCurveSettings) -> list[str]:
    """Return the names of the tables that the settings lead to."""
    return [*TABLES, *(["linearity"] if settings.linearity else [])]
