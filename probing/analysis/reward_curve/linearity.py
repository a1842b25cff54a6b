"""Compare two probes on the same cells: does a network read more than a linear probe?"""

from __future__ import annotations

import pandas as pd

from probing.analysis.engine import KEYS, MIN_PROMPTS, CellResults, column_names, correct
from probing.errors import UserError
from probing.statistics import equivalent, paired_difference

MARGIN = 0.01
"""Difference of accuracy within which two probes count as equivalent."""
COLUMNS = column_names(
    "model facet control stream reduction sigma block cell probe other difference ci_low ci_high p_value p_value_holm "
    "family verdict equivalent margin n_pairs n_prompts",
    with_provenance=False,
)


def compare_probes(linear: CellResults, other: CellResults, *, margin: float = MARGIN) -> pd.DataFrame:
    """Compare the same cells under two probes, such as ``logistic`` and ``mlp``, pair by pair.

    Args:
        linear: Cells of the linear probe.
        other: Cells of the other probe; cells that only one of both has are left out.
        margin: Difference of accuracy within which the two count as equivalent.

    Returns:
        One row a cell: ``difference``, the other probe's accuracy less the linear one's, with its 95% interval over
        prompts; ``p_value_holm``, corrected over the cells of a facet; ``verdict``; ``equivalent``, whether both are
        the same to within the margin by two one-sided tests at 5%.

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
        test = paired_difference(other_outcomes, linear_outcomes, prompts)
        same = equivalent(other_outcomes, linear_outcomes, prompts, margin=margin)
        rows.append(
            {key: row[key] for key in COLUMNS if key in row}
            | {
                "other": row["probe_other"],
                "difference": float(test.estimate),
                "ci_low": float(test.low),
                "ci_high": float(test.high),
                "p_value": float(test.p_value),
                "smallest_p_value": float(test.smallest_p_value),
                "equivalent": bool(same) and row["n_prompts"] >= MIN_PROMPTS,
                "margin": margin,
            }
        )
    return correct(pd.DataFrame(rows), "difference", by=["facet"])[list(COLUMNS)]
