"""Rewards of held-out items by the best probe of each facet, for scoring by any rule."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd

from probing.analysis.engine import LOGISTIC, FeatureSource, Recipe, Run, Site, facets_of, in_facet, read_for_fits
from probing.result_tables import best_cell


def best_rewards(
    store: FeatureSource, pairs: pd.DataFrame, table: pd.DataFrame, recipe: Recipe = LOGISTIC, run: Run | None = None
) -> pd.DataFrame:
    """Refit each facet's best cell, selected on training pairs, and score the held-out items.

    Args:
        store: Features of the trained backbone.
        pairs: The pairs that the table was measured on.
        table: Cells of :func:`probing.analysis.reward_curve.measure_curve`.
        recipe: The recipe of the cells; probe and scaling come from the table.
        run: Memory of fits.

    Returns:
        ``item_id, facet, reward, cell``: one row a facet and item of its validation and test pairs. Rewards are
        logits of the Bradley–Terry probe: a difference of two is the log odds of the first being chosen.

    Raises:
        UserError: As :func:`probing.analysis.engine.measure_cells`.
    """
    run = run or Run()
    ids = np.asarray(store.item_ids)
    parts = []
    for facet in facets_of(store, pairs, sorted(table["facet"].unique())):
        cell = best_cell(table[(table["control"] == "trained") & (table["facet"] == facet.name)])
        site = Site(cell["stream"], cell["reduction"], cell["sigma"], int(cell["block"]))
        refit = replace(recipe, probe=cell["probe"], scaling=cell["scaling"], code_length=False)
        most = run.bytes_of_a_fit if refit.streams else math.inf
        features = read_for_fits(store, site, most_bytes=most, folder=run.journal)
        probe = refit.fit(features, facet.train)
        held_out = pairs[in_facet(pairs, facet.name) & (pairs["split"] != "train")]
        rows = np.flatnonzero(pd.Index(ids).isin(pd.unique(held_out[["first", "second"]].to_numpy().ravel())))
        parts.append(
            pd.DataFrame(
                {
                    "item_id": ids[rows],
                    "facet": facet.name,
                    "reward": refit.rewards(probe, features)[rows],
                    "cell": cell["cell"],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
