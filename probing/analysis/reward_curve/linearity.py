"""Compare two probes on the same cells: does a network read more than a linear probe?"""

from __future__ import annotations

import pandas as pd

from probing.analysis.engine import KEYS, CellResults, column_names
from probing.errors import UserError
from probing.statistics import equivalence, holm, paired_difference

MARGIN = 0.01
"""Difference of accuracy within which two probes count as equivalent."""
COLUMNS = column_names(
    "model facet control stream reduction sigma block cell probe other difference ci_low ci_high p_value p_value_holm "
    "equivalent margin n_pairs n_prompts",
    with_provenance=False,
)


def compare_probes(linear: CellResults, other: CellResults, *, margin: float = MARGIN, seed: int = 0) -> pd.DataFrame:
    """Compare the same cells under two probes, such as ``logistic`` and ``mlp``, pair by pair.

    Args:
        linear: Cells of the linear probe.
        other: Cells of the other probe; cells that only one of both has are left out.
        margin: Difference of accuracy within which the two count as equivalent.
        seed: Seed of the bootstrap.

    Returns:
        One row a cell: ``difference``, the other probe's accuracy less the linear one's, with its 95% interval over
        prompts; ``p_value_holm``, corrected over the cells of a facet; ``equivalent``, whether both are the same to
        within the margin by two one-sided tests at 5%.

    Raises:
        UserError: They share no cell.
    """
    both = linear.table.merge(other.table, on="cell", suffixes=("", "_other"))
    if not len(both):
        raise UserError("The two results share no cell; fit both probes on the same store, facets and controls.")
    joined = linear.outcomes.merge(other.outcomes, on=KEYS, suffixes=("", "/other"), validate="one_to_one")
    rows = []
    for row in both.to_dict("records"):
        pairs = joined[joined["facet"] == row["facet"]]
        prompts = pairs["prompt_id"].to_numpy(dtype=str)
        other_outcomes, linear_outcomes = (
            pairs[name].to_numpy(dtype=float) for name in (f"{row['cell']}/other", row["cell"])
        )
        test = paired_difference(other_outcomes[:, None], linear_outcomes[:, None], prompts, seed=seed)
        equivalent = equivalence(other_outcomes, linear_outcomes, prompts, margin=margin, seed=seed).equivalent
        rows.append(
            {key: row[key] for key in COLUMNS if key in row}
            | {
                "other": row["probe_other"],
                "difference": float(test.estimate[0]),
                "ci_low": float(test.low[0]),
                "ci_high": float(test.high[0]),
                "p_value": float(test.p_value[0]),
                "equivalent": equivalent,
                "margin": margin,
            }
        )
    table = pd.DataFrame(rows)
    table["p_value_holm"] = table.groupby("facet")["p_value"].transform(lambda p: holm(p.to_numpy()))
    return table[list(COLUMNS)]
