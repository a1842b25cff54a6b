"""Compare the blocks of a curve with its best block, selected on training pairs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from probing.analysis.engine import CellResults
from probing.result_tables import best_cell
from probing.statistics import (
    clustered_mcnemar,
    equivalence,
    holm,
    paired_difference,
    prompts_needed,
    variance_of_difference,
)

DELTA = 0.01
POWER = 0.8
CURVE = ["model", "control", "probe", "facet", "stream", "reduction", "sigma"]
COLUMNS = (
    *CURVE,
    "chosen_block",
    "block",
    "difference",
    "ci_low",
    "ci_high",
    "p_value",
    "p_value_holm",
    "p_value_mcnemar",
    "equivalent",
    "delta",
    "prompts_needed",
    "pairs_needed",
    "n_pairs",
    "n_prompts",
    "chosen_cell",
    "cell",
)


def compare_blocks(results: CellResults, *, delta: float = DELTA, seed: int = 0) -> pd.DataFrame:
    """Compare every block with the block of its curve that has the highest cross-validated training accuracy.

    Args:
        results: Cells; those of shuffled choices are left out.
        delta: Difference of accuracy that matters: blocks closer than that count as the same, and the test pairs
            needed are those that would show it.
        seed: Of the bootstrap.

    Returns:
        One row a block: ``difference``, the chosen block's accuracy less this one's, with its 95% interval over
        prompts; ``p_value`` of the paired bootstrap, ``p_value_holm`` corrected over the curve's blocks,
        ``p_value_mcnemar`` of the clustered McNemar test; ``equivalent``, whether the two are the same to within delta by two one-sided tests at
        5%; ``prompts_needed`` and ``pairs_needed``, how many test prompts, and pairs at as many a prompt, find a
        difference of delta with a chance of 80% at 5%, given how much these two blocks' answers vary.

    Raises:
        ValueError: A delta that is not above 0.
    """
    if not delta > 0:
        raise ValueError(f"Got delta {delta}, expected a number above 0; 0.01 is one point of accuracy.")
    tables = [pd.DataFrame(columns=list(COLUMNS))]
    shown = results.table[results.table["block"].notna() & (results.table["control"] != "shuffled")]
    for _, curve in shown.groupby(CURVE, dropna=False, sort=False):
        if len(curve) > 1:
            tables.append(_of_curve(results.outcomes, curve, delta, seed))
    return pd.concat(tables[1:] or tables, ignore_index=True)[list(COLUMNS)]


def _of_curve(outcomes: pd.DataFrame, curve: pd.DataFrame, delta: float, seed: int) -> pd.DataFrame:
    chosen = best_cell(curve)
    others = curve[curve["cell"] != chosen["cell"]]
    pairs = outcomes[outcomes["facet"] == chosen["facet"]]
    prompts = pairs["prompt_id"].to_numpy(dtype=str)
    first = pairs[chosen["cell"]].to_numpy(dtype=float)
    second = pairs[others["cell"]].to_numpy(dtype=float)
    found = paired_difference(np.broadcast_to(first[:, None], second.shape), second, prompts, seed=seed)
    same, mcnemar, needed = [], [], []
    for column in second.T:
        same.append(equivalence(first, column, prompts, margin=delta, seed=seed).equivalent)
        mcnemar.append(clustered_mcnemar(first, column, prompts).p_value)
        variance, per_prompt = variance_of_difference(first, column, prompts)
        prompts_then = prompts_needed(delta, variance, power=POWER)
        needed.append((prompts_then, math.ceil(prompts_then * per_prompt)))
    return others[[*CURVE, "block", "n_pairs", "n_prompts", "cell"]].assign(
        chosen_block=chosen["block"],
        chosen_cell=chosen["cell"],
        difference=found.estimate,
        ci_low=found.low,
        ci_high=found.high,
        p_value=found.p_value,
        p_value_holm=holm(found.p_value),
        p_value_mcnemar=mcnemar,
        equivalent=same,
        delta=delta,
        prompts_needed=[prompts for prompts, _ in needed],
        pairs_needed=[pairs for _, pairs in needed],
    )
