"""Other models' rewards on the same test pairs, as references in a reward curve (such as HPSv3's in the paper)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from probing.analysis.engine import (
    ALL_FACETS,
    REFERENCE,
    CellResults,
    Facet,
    FeatureSource,
    Fit,
    cell_results,
    concatenate_facets,
    facets_of,
    provenance,
)
from probing.errors import UserError


def measure_reference(
    name: str,
    rewards: pd.DataFrame,
    store: FeatureSource,
    pairs: pd.DataFrame,
    *,
    facets: Sequence[str] | None = None,
    seed: int = 0,
) -> CellResults:
    """Score another model's rewards on the test pairs of a reward curve.

    Nothing is fitted; only the order of rewards within a pair counts.

    Args:
        name: The model's name in tables and figures.
        rewards: ``item_id, reward`` of every item of the test pairs; with a column ``facet``, each facet has its own.
        store: The store of the curve; its items can be scored.
        pairs: The pairs of the curve.
        facets: Which facets; all if None.
        seed: Seed of the bootstrap.

    Returns:
        One cell a facet, of control ``reference`` and model ``name``; it has neither block nor noise level.

    Raises:
        UserError: Rewards without these columns, two rewards of one item, or an item of the test pairs without a finite
            reward.
    """
    missing = [column for column in ("item_id", "reward") if column not in rewards]
    if missing:
        raise UserError(
            f"The rewards of {name} have no column {missing[0]}, expected item_id and reward; "
            f"python -m probing.score --list-items writes the items."
        )
    keys = ["facet", "item_id"] if "facet" in rewards else ["item_id"]
    repeated = rewards.duplicated(keys)
    if repeated.any():
        item = rewards.loc[repeated, "item_id"].iloc[0]
        raise UserError(f"The rewards of {name} have item {item!r} twice; keep one of each.")
    common = {
        **provenance(store),
        "model": name,
        "store": None,
        "revision": None,
        "config_hash": None,
        "extraction_seed": None,
        "split": "test",
        "probe": None,
        "control": REFERENCE,
        "seed": seed,
    }
    site = {"stream": REFERENCE, "reduction": None, "sigma": np.nan, "block": pd.NA, "depth": np.nan}
    item_ids = np.asarray(store.item_ids)
    return concatenate_facets(
        [
            cell_results(facet, [site], [_fit_of_rewards(name, facet, rewards, item_ids)], common)
            for facet in facets_of(store, pairs, facets)
            # Rewards of their own for each facet are not one reward of every pair.
            if "facet" not in rewards or facet.name != ALL_FACETS or (rewards["facet"] == ALL_FACETS).any()
        ]
    )


def _fit_of_rewards(name: str, facet: Facet, rewards: pd.DataFrame, item_ids: np.ndarray) -> Fit:
    """Put the margins of given rewards into a fit, without fitting."""
    rewards = rewards[rewards["facet"] == facet.name] if "facet" in rewards else rewards
    reward_of = rewards.set_index(rewards["item_id"].astype(str))["reward"].astype(float)
    first, second = (reward_of.reindex(item_ids[rows].astype(str)) for rows in (facet.test.first, facet.test.second))
    for side in (first, second):
        bad = ~np.isfinite(side.to_numpy())
        if bad.any():
            raise UserError(
                f"The rewards of {name} lack a finite one for {int(bad.sum()):,} items of {facet.name}'s test pairs, "
                f"the first being {side.index[bad][0]!r}; score all items of the pairs."
            )
    return Fit(
        cell=f"{REFERENCE}/{facet.name}/{name}",
        cv_accuracy=np.nan,
        temperature=np.nan,
        alpha=np.nan,
        scaling=None,
        compression=np.nan,
        channels=0,
        choices=facet.test.choices,
        margins=(first.to_numpy() - second.to_numpy())[:, None],
        train_margins=np.empty(0),
        scored=np.empty(0),
        shuffled=np.empty((len(facet.test.choices), 0)),
    )
