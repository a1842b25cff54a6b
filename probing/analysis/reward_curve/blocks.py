"""Compare the blocks of a curve with its best block, selected on training pairs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from probing.analysis.engine import MIN_PROMPTS, SHUFFLED, CellResults, column_names, correct
from probing.result_tables import best_cell
from probing.statistics import equivalent, paired_difference, prompts_needed, variance_of_difference

DELTA = 0.01
"""Smallest difference of accuracy that matters."""
POWER = 0.8
"""Probability that the needed pairs detect a difference of delta."""
CURVE = ["model", "control", "probe", "facet", "stream", "reduction", "sigma"]
COLUMNS = (
    *CURVE,
    *column_names(
        "chosen_block block difference ci_low ci_high p_value p_value_holm family verdict equivalent "
        "delta prompts_needed pairs_needed n_pairs n_prompts chosen_cell cell",
        with_provenance=False,
    ),
)


def compare_blocks(results: CellResults, *, delta: float = DELTA) -> pd.DataFrame:
    """Compare every block with the block of its curve that has the highest cross-validated training accuracy.

    Args:
        results: Cells; those of shuffled choices are left out.
        delta: Smallest difference of accuracy that matters.

    Returns:
        One row a block: ``difference``, the chosen block's accuracy less this block's, with its 95% interval over
        prompts; ``p_value_holm`` corrected over the curve's blocks; ``verdict``; ``equivalent``, whether both are the
        same to within delta by two one-sided tests at 5%; ``prompts_needed`` and ``pairs_needed``, how many test
        prompts, and pairs at the same number a prompt, detect a difference of delta with power 80% at level 5%.

    Raises:
        ValueError: A delta that is not above 0.
    """
    if not delta > 0:
        raise ValueError(f"Got delta {delta}, expected a number above 0; 0.01 is one point of accuracy.")
    tables = []
    cells = results.table[results.table["block"].notna() & (results.table["control"] != SHUFFLED)]
    for _, curve in cells.groupby(CURVE, dropna=False, sort=False):
        if len(curve) > 1:
            tables.append(_compare_curve(results.outcomes, curve, delta))
    if not tables:
        return pd.DataFrame(columns=list(COLUMNS))
    return correct(pd.concat(tables, ignore_index=True), "difference", by=CURVE)[list(COLUMNS)]


def _compare_curve(outcomes: pd.DataFrame, curve: pd.DataFrame, delta: float) -> pd.DataFrame:
    chosen = best_cell(curve)
    others = curve[curve["cell"] != chosen["cell"]]
    pairs = outcomes[outcomes["facet"] == chosen["facet"]]
    prompts = pairs["prompt_id"].to_numpy(dtype=str)
    first = pairs[chosen["cell"]].to_numpy(dtype=float)
    second = pairs[others["cell"]].to_numpy(dtype=float)
    test = paired_difference(np.broadcast_to(first[:, None], second.shape), second, prompts)
    same = equivalent(np.broadcast_to(first[:, None], second.shape), second, prompts, margin=delta)
    needed = []
    for column in second.T:
        variance, per_prompt = variance_of_difference(first, column, prompts)
        count = prompts_needed(delta, variance, per_prompt, power=POWER)
        needed.append((count, math.ceil(count * per_prompt)))
    return others[[*CURVE, "block", "n_pairs", "n_prompts", "cell"]].assign(
        chosen_block=chosen["block"],
        chosen_cell=chosen["cell"],
        difference=test.estimate,
        ci_low=test.low,
        ci_high=test.high,
        p_value=test.p_value,
        smallest_p_value=test.smallest_p_value,
        equivalent=same & (others["n_prompts"] >= MIN_PROMPTS).to_numpy(),
        delta=delta,
        prompts_needed=[prompts for prompts, _ in needed],
        pairs_needed=[pairs for _, pairs in needed],
    )
