"""The tables of adapted rewards: accuracies, paired differences, and the reward curves of the adapted backbones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from probing.analysis.engine import KEYS, CellResults, column_names, correct
from probing.statistics import outcomes, paired_difference, share_interval

FROZEN, RIVAL = "frozen", "testbed-rival"
_COLUMNS = column_names(
    "model facet how stream reduction sigma block depth value ci_low ci_high ceiling n_pairs n_prompts difference "
    "difference_low difference_high p_value p_value_holm family verdict",
    with_provenance=False,
)


def right(rewards: pd.Series, pairs: pd.DataFrame) -> np.ndarray:
    """Return the outcome of every pair under the rewards of items."""
    margins = (pairs["first"].map(rewards) - pairs["second"].map(rewards)).to_numpy(dtype=float)
    return outcomes(margins, pairs["choice"].to_numpy(dtype=float))


def tables(
    scores: Mapping[tuple[str, str, int], pd.Series], rival: pd.Series, test: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure each way of training, mean over its seeds, and compare it with the frozen backbone and with the rival.

    Args:
        scores: By model, way and seed: the reward of every test item.
        rival: Rewards of the discriminative baseline.
        test: The test pairs.

    Returns:
        Accuracies with intervals over prompts, and the least and most of single seeds; paired differences, corrected by
        Holm over the table.
    """
    accuracies, differences = [], []
    facets = ["all", *sorted(test["facet"].unique())]
    ways = list(dict.fromkeys((model, how) for model, how, _ in scores))
    for facet in facets:
        pairs = test if facet == "all" else test[test["facet"] == facet]
        prompts = pairs["prompt_id"].to_numpy()
        untied = pairs["choice"].to_numpy() != 0.5
        ceiling = np.nan
        if "probability" in pairs:
            probability = pairs.loc[untied, "probability"].to_numpy(dtype=float)
            ceiling = float(np.maximum(probability, 1 - probability).mean())
        by_way = {
            (model, how): np.stack([right(s, pairs) for (m, h, _), s in scores.items() if (m, h) == (model, how)])
            for model, how in ways
        }
        by_way[RIVAL, ""] = right(rival, pairs)[None]
        about = {"facet": facet, "n_pairs": int(untied.sum()), "n_prompts": len(np.unique(prompts[untied]))}
        for (model, how), by_seed in by_way.items():
            interval = share_interval(by_seed.mean(axis=0), prompts)
            each = np.nanmean(by_seed, axis=1)
            accuracies.append(
                {"model": model, "how": how, **about, "value": float(interval.estimate)}
                | {"ci_low": float(interval.low), "ci_high": float(interval.high), "seeds": len(by_seed)}
                | {"least": float(each.min()), "most": float(each.max()), "ceiling": ceiling}
            )
        comparisons = [((m, h), (m, FROZEN)) for m, h in ways if h != FROZEN] + [(way, (RIVAL, "")) for way in ways]
        for first, second in comparisons:
            named = {"model": first[0], "how": first[1], "against": " ".join(second).strip(), **about}
            differences.append(named | _compare(by_way[first].mean(axis=0), by_way[second].mean(axis=0), prompts))
    compared = correct(pd.DataFrame(differences), "difference").drop(columns="smallest_p_value")
    return pd.DataFrame(accuracies), compared


def curves(results: Mapping[tuple[str, str], CellResults]) -> pd.DataFrame:
    """Put the reward curves of adapted backbones beside the frozen one's: what moved, and in which block?

    Args:
        results: By model and way, the cells of its store; the same cells for every way of a model.

    Returns:
        One row a model, way and cell: its accuracy with the interval over prompts, and the paired difference to the
        same cell of the frozen backbone, corrected by Holm over the blocks of a model, way and facet.
    """
    parts = []
    for (model, how), of_way in results.items():
        frozen = results[model, FROZEN].outcomes
        rows = of_way.table.assign(model=model, how=how)
        if how != FROZEN:
            rows = rows.join(
                pd.DataFrame(
                    [
                        _difference_of_cell(cell, facet, of_way.outcomes, frozen)
                        for cell, facet in rows[["cell", "facet"]].itertuples(index=False)
                    ],
                    index=rows.index,
                ).rename(columns={"ci_low": "difference_low", "ci_high": "difference_high"})
            )
        parts.append(rows)
    table = pd.concat(parts, ignore_index=True)
    tested = correct(table, "difference", by=["model", "how", "facet"])
    return tested[list(_COLUMNS)]


def _difference_of_cell(cell: str, facet: str, outcomes: pd.DataFrame, frozen: pd.DataFrame) -> dict[str, Any]:
    both = outcomes.loc[outcomes["facet"] == facet, [*KEYS, cell]].merge(
        frozen[[*KEYS, cell]], on=KEYS, suffixes=("", "_frozen"), validate="one_to_one"
    )
    adapted, frozen_outcomes = (both[name].to_numpy(dtype=float) for name in (cell, f"{cell}_frozen"))
    return _compare(adapted, frozen_outcomes, both["prompt_id"].to_numpy(dtype=str))


def _compare(first: np.ndarray, second: np.ndarray, prompts: np.ndarray) -> dict[str, float]:
    test = paired_difference(first, second, prompts)
    return {
        "difference": float(test.estimate),
        "ci_low": float(test.low),
        "ci_high": float(test.high),
        "p_value": float(test.p_value),
        "smallest_p_value": float(test.smallest_p_value),
    }
