"""What else a cell's margins say: information in bits, calibration, selectivity, and which blocks may be the best."""

from __future__ import annotations

import numpy as np
import pandas as pd

from probing.analysis.engine import CellResults
from probing.statistics import (
    auroc,
    best_candidates,
    cluster_bootstrap,
    paired_difference,
    reliability,
    usable_information,
)

_CURVE = ["model", "control", "probe", "facet", "stream", "reduction", "sigma"]
_PLACE = ["model", "facet", "probe", "stream", "reduction", "sigma", "block"]
COLUMNS = (*_PLACE, "control", "cell", "metric", "value", "ci_low", "ci_high", "n_pairs", "n_prompts")


def measures(results: CellResults, pairs: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Measure every cell beyond its accuracy.

    Metrics:

    - ``information``: usable information, bits a pair (Xu et al. 2020), margins divided by the cell's temperature;
      1 is all there is to know, 0 a coin.
    - ``ece``: expected calibration error of the same probabilities; no interval, for its estimate is biased upwards
      and a bootstrap's more so.
    - ``auroc``: area under the ROC curve of margins against choices, both orders of a pair looked at (sides mean
      nothing); its interval is Obuchowski's over prompts.
    - ``selectivity``: accuracy less that of the same cell fitted to shuffled choices, mean over shuffles (Hewitt and
      Liang 2019); of trained cells that have them.
    - ``may_be_best``: 1 where a block belongs to the 95% confidence set of the best block of its curve, else 0.

    Args:
        results: Cells, with their margins.
        pairs: The pairs that they were measured on.
        seed: Of the bootstrap.

    Returns:
        One row a cell and metric, with the columns :data:`COLUMNS`; intervals are 95% over prompts, NaN where there is
        none.
    """
    choice_of = pairs.set_index("pair_id")["choice"]
    parts = []
    for facet, cells in results.table.groupby("facet", sort=False):
        outcomes = results.outcomes[results.outcomes["facet"] == facet]
        margins = results.margins[results.margins["facet"] == facet].set_index("pair_id").loc[outcomes["pair_id"]]
        choices = choice_of.loc[outcomes["pair_id"]].to_numpy(dtype=np.float64)
        parts.append(_of_facet(cells, outcomes, margins, choices, seed))
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _of_facet(
    cells: pd.DataFrame, outcomes: pd.DataFrame, margins: pd.DataFrame, choices: np.ndarray, seed: int
) -> pd.DataFrame:
    prompts = outcomes["prompt_id"].to_numpy(dtype=str)
    asked = choices != 0.5
    keys = [*_PLACE, "control", "cell", "n_pairs", "n_prompts"]
    tables = []

    calibrated = cells[cells["temperature"].notna()]
    if len(calibrated):
        log_odds = margins[calibrated["cell"]].to_numpy() / calibrated["temperature"].to_numpy()
        bits = np.stack([usable_information(column, choices) for column in log_odds.T], axis=1)
        found = cluster_bootstrap(bits, prompts, seed=seed)
        known = calibrated[keys]
        tables.append(known.assign(metric="information", value=found.estimate, ci_low=found.low, ci_high=found.high))
        errors = [reliability(column[asked], choices[asked]).error for column in log_odds.T]
        tables.append(known.assign(metric="ece", value=errors, ci_low=np.nan, ci_high=np.nan))

    tables.append(_areas(cells[keys], margins, choices, prompts))

    shuffled = cells[cells["control"] == "shuffled"].groupby(_PLACE, dropna=False)["cell"].agg(list)
    trained = cells[cells["control"] == "trained"]
    pairs_of = [(row["cell"], shuffled.get(tuple(row[key] for key in _PLACE))) for row in trained.to_dict("records")]
    has = [there is not None for _, there in pairs_of]
    if any(has):
        own = outcomes[[cell for cell, there in pairs_of if there is not None]].to_numpy()
        dealt = np.stack([outcomes[there].to_numpy().mean(axis=1) for _, there in pairs_of if there is not None], 1)
        difference = paired_difference(own, dealt, prompts, seed=seed)
        tables.append(
            trained.loc[has, keys].assign(
                metric="selectivity", value=difference.estimate, ci_low=difference.low, ci_high=difference.high
            )
        )

    for _, curve in cells[cells["block"].notna() & (cells["control"] != "shuffled")].groupby(_CURVE, dropna=False):
        if len(curve) > 1:
            members = best_candidates(outcomes[curve["cell"]].to_numpy(), prompts, seed=seed).members
            tables.append(
                curve[keys].assign(metric="may_be_best", value=members.astype(float), ci_low=np.nan, ci_high=np.nan)
            )
    return pd.concat(tables, ignore_index=True)


def _areas(known: pd.DataFrame, margins: pd.DataFrame, choices: np.ndarray, prompts: np.ndarray) -> pd.DataFrame:
    asked = choices != 0.5
    scores = margins[known["cell"]].to_numpy()[asked]
    found = auroc(
        np.concatenate([scores, -scores]),
        np.concatenate([choices[asked], 1 - choices[asked]]),
        np.tile(prompts[asked], 2),
    )
    low, high = found.interval()
    return known.assign(metric="auroc", value=found.areas, ci_low=low, ci_high=high)
