"""Measures of a cell's margins: information in bits, calibration, selectivity, and candidates for the best block."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.analysis.engine import SHUFFLED, CellResults
from probing.statistics import auroc, best_candidates, mean_interval, paired_difference, reliability, usable_information

_CURVE = ["model", "control", "probe", "facet", "stream", "reduction", "sigma"]
_SITE = ["model", "facet", "probe", "stream", "reduction", "sigma", "block"]
_KEYS = [*_SITE, "control", "cell", "n_pairs", "n_prompts"]
COLUMNS = (*_SITE, "control", "cell", "metric", "value", "ci_low", "ci_high", "n_pairs", "n_prompts")


def measures(results: CellResults, pairs: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Measure every cell beyond its accuracy.

    Metrics:

    - ``information``: usable information, bits a pair (Xu et al. 2020), of margins divided by the cell's temperature;
      at most 1, and 0 for a coin.
    - ``ece``: expected calibration error of the same probabilities; without an interval, since its estimate is biased
      upwards and a bootstrap's more so.
    - ``auroc``: area under the ROC curve of margins against choices, with both orders of each pair (which item is first
      has no meaning); its interval is Obuchowski's over prompts.
    - ``selectivity``: accuracy less the mean of the same cell's refits to shuffled choices (Hewitt and Liang 2019), for
      other prompts and other shuffles; of trained cells with shuffles.
    - ``may_be_best``: 1 if a block is in the 95% confidence set of the best block of its curve, else 0.

    Args:
        results: Cells, with their margins.
        pairs: The pairs that they were measured on.
        seed: Seed of the bootstrap of the confidence set.

    Returns:
        One row a cell and metric, with the columns :data:`COLUMNS`; intervals are 95% over prompts, NaN without one.
    """
    choice_of = pairs.set_index("pair_id")["choice"]
    parts = []
    for facet, cells in results.table.groupby("facet", sort=False):
        outcomes = results.outcomes[results.outcomes["facet"] == facet]
        margins = results.margins[results.margins["facet"] == facet].set_index("pair_id").loc[outcomes["pair_id"]]
        choices = choice_of.loc[outcomes["pair_id"]].to_numpy(dtype=np.float64)
        prompts = outcomes["prompt_id"].to_numpy(dtype=str)
        parts += [
            *_calibration(cells, margins, choices, prompts),
            _areas(cells, margins, choices, prompts),
            *_selectivity(cells, outcomes, prompts),
            *_candidates(cells, outcomes, prompts, seed),
        ]
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _rows(cells: pd.DataFrame, metric: str, value: Any, low: Any = np.nan, high: Any = np.nan) -> pd.DataFrame:
    return cells[_KEYS].assign(metric=metric, value=value, ci_low=low, ci_high=high)


def _calibration(
    cells: pd.DataFrame, margins: pd.DataFrame, choices: Float[np.ndarray, " pair"], prompts: np.ndarray
) -> list[pd.DataFrame]:
    """Measure information and calibration of the cells that have a temperature."""
    cells = cells[cells["temperature"].notna()]
    if not len(cells):
        return []
    log_odds = margins[cells["cell"]].to_numpy() / cells["temperature"].to_numpy()
    bits = np.stack([usable_information(column, choices) for column in log_odds.T], axis=1)
    information = mean_interval(bits, prompts)
    untied = choices != 0.5
    errors = [reliability(column[untied], choices[untied]).error for column in log_odds.T]
    return [
        _rows(cells, "information", information.estimate, information.low, information.high),
        _rows(cells, "ece", errors),
    ]


def _areas(
    cells: pd.DataFrame, margins: pd.DataFrame, choices: Float[np.ndarray, " pair"], prompts: np.ndarray
) -> pd.DataFrame:
    untied = choices != 0.5
    scores = margins[cells["cell"]].to_numpy()[untied]
    area = auroc(
        np.concatenate([scores, -scores]),
        np.concatenate([choices[untied], 1 - choices[untied]]),
        np.tile(prompts[untied], 2),
    )
    return _rows(cells, "auroc", area.areas, *area.interval())


def _selectivity(cells: pd.DataFrame, outcomes: pd.DataFrame, prompts: np.ndarray) -> list[pd.DataFrame]:
    """Compare trained cells with their refits to shuffled choices."""
    shuffled = cells[cells["control"] == SHUFFLED].set_index(_SITE)
    trained = cells[cells["control"] == "trained"]
    trained = trained[pd.MultiIndex.from_frame(trained[_SITE]).isin(shuffled.index)]
    if not len(trained):
        return []
    matches = shuffled.loc[list(pd.MultiIndex.from_frame(trained[_SITE]))]
    test = paired_difference(outcomes[trained["cell"]].to_numpy(), outcomes[matches["cell"]].to_numpy(), prompts)
    # The error of the shuffled mean, for other shuffles too, joins that of the difference over prompts.
    of_shuffles = (matches["ci_high"] - matches["ci_low"]).to_numpy() / 2
    low = test.estimate - np.hypot(test.estimate - test.low, of_shuffles)
    high = test.estimate + np.hypot(test.high - test.estimate, of_shuffles)
    return [_rows(trained, "selectivity", test.estimate, low, high)]


def _candidates(cells: pd.DataFrame, outcomes: pd.DataFrame, prompts: np.ndarray, seed: int) -> list[pd.DataFrame]:
    """Mark the blocks of each curve's confidence set of the best block."""
    blocks = cells[cells["block"].notna() & (cells["control"] != SHUFFLED)]
    return [
        _rows(
            curve,
            "may_be_best",
            best_candidates(outcomes[curve["cell"]].to_numpy(), prompts, seed=seed).members.astype(float),
        )
        for _, curve in blocks.groupby(_CURVE, dropna=False, sort=False)
        if len(curve) > 1
    ]
