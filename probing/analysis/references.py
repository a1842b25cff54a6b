"""Other rewards on the same test pairs: what a reward curve is measured against, as the paper has HPSv3's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from probing.analysis.cells import summarise
from probing.analysis.journal import Measured
from probing.analysis.pairs import Facet, facets_of
from probing.analysis.results import REFERENCE, CellResults, provenance
from probing.analysis.source import FeatureSource
from probing.errors import UserError


def reference(
    name: str,
    rewards: pd.DataFrame,
    store: FeatureSource,
    pairs: pd.DataFrame,
    *,
    facets: Sequence[str] | None = None,
    seed: int = 0,
) -> CellResults:
    """Score another model's rewards on the very test pairs of a reward curve.

    Nothing is fitted: rewards are taken as they are, and only their order within a prompt counts.

    Args:
        name: The model's name, as tables and figures say it.
        rewards: ``item_id, reward`` of every item of the test pairs; with a column ``facet``, each facet has its own.
        store: The curve's store; its items are those that can be scored.
        pairs: The pairs that the curve is measured on.
        facets: Which facets; all if None.
        seed: Of the bootstrap.

    Returns:
        One cell a facet, of control ``reference`` and model ``name``; it has neither block nor noise level.

    Raises:
        UserError: Rewards without these columns, two of one item, or an item of the test pairs without a finite one.
    """
    missing = [column for column in ("item_id", "reward") if column not in rewards]
    if missing:
        raise UserError(
            f"The rewards of {name} have no column {missing[0]}, expected item_id and reward; "
            f"python -m probing.score --list-items writes the items."
        )
    keys = ["facet", "item_id"] if "facet" in rewards else ["item_id"]
    twice = rewards.duplicated(keys)
    if twice.any():
        item = rewards.loc[twice, "item_id"].iloc[0]
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
    parts = [
        summarise(facet, [_measured(name, facet, rewards, np.asarray(store.item_ids))], common, seed)
        for facet in facets_of(store, pairs, facets)
    ]
    return CellResults(*(pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True)))


def _measured(name: str, facet: Facet, rewards: pd.DataFrame, item_ids: np.ndarray) -> Measured:
    own = rewards[rewards["facet"] == facet.name] if "facet" in rewards else rewards
    reward_of = own.set_index(own["item_id"].astype(str))["reward"].astype(float)
    sides = [reward_of.reindex(item_ids[rows].astype(str)) for rows in (facet.test.first, facet.test.second)]
    for side in sides:
        bad = ~np.isfinite(side.to_numpy())
        if bad.any():
            raise UserError(
                f"The rewards of {name} lack a finite one for {int(bad.sum()):,} items of {facet.name}'s test pairs, "
                f"the first being {side.index[bad][0]!r}; score all items that the pairs hold."
            )
    row = {
        "cell": f"{REFERENCE}/{facet.name}/{name}",
        "stream": REFERENCE,
        "reduction": None,
        "sigma": np.nan,
        "block": pd.NA,
        "depth": np.nan,
        "alpha": np.nan,
        "cv_accuracy": np.nan,
        "scaling": None,
        "compression": np.nan,
        "temperature": np.nan,
    }
    return Measured(row, (sides[0].to_numpy() - sides[1].to_numpy())[:, None])
