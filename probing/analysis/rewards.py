"""Rewards of single items by the best probe of each facet, for scoring by any rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from probing.analysis.pairs import facets_of
from probing.analysis.recipe import LOGISTIC, Recipe
from probing.analysis.source import FeatureSource, Place, read_site
from probing.result_tables import best_cell


def rewards_of_best(
    store: FeatureSource, pairs: pd.DataFrame, table: pd.DataFrame, recipe: Recipe = LOGISTIC
) -> pd.DataFrame:
    """Fit the cell that did best on each facet's training pairs again, and score the items that are held out.

    Args:
        store: Features of the trained backbone.
        pairs: The pairs that the table was measured on.
        table: Of :func:`probing.analysis.reward_curve`.
        recipe: What it was fitted by; probe and scaling are the table's.

    Returns:
        ``item_id, facet, reward, cell``: one row a facet and item of its validation and test pairs. Rewards are
        logits of the Bradley–Terry probe: a difference of two is the log odds of the first being chosen.

    Raises:
        UserError: As :func:`probing.analysis.fit_cells`.
    """
    ids = np.asarray(store.item_ids)
    parts = []
    for facet in facets_of(store, pairs, sorted(table["facet"].unique())):
        cell = best_cell(table[(table["control"] == "trained") & (table["facet"] == facet.name)])
        features = read_site(store, Place(cell["stream"], cell["reduction"], cell["sigma"], int(cell["block"])))
        chosen = replace(recipe, probe=cell["probe"], scaling=cell["scaling"], code_length=False)
        probe = chosen.fit(features, facet.train)
        held_out = pairs[(pairs["facet"] == facet.name) & (pairs["split"] != "train")]
        rows = np.flatnonzero(np.isin(ids, pd.unique(held_out[["first", "second"]].to_numpy().ravel())))
        parts.append(
            pd.DataFrame(
                {
                    "item_id": ids[rows],
                    "facet": facet.name,
                    "reward": chosen.rewards(probe, features[rows]),
                    "cell": cell["cell"],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
