"""A summary of the reward curve in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from probing.analysis.engine import ABOVE
from probing.analysis.reward_curve.comparisons import describe_cell
from probing.result_tables import best_cell


def report_reward_curve(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Summarise the best cell of each facet, and the comparisons with controls."""
    curve = tables["reward_curve"]
    lines = ["Best cell of each facet, selected on training pairs; accuracy on test pairs [95% interval over prompts]:"]
    for facet, cells in curve[curve["control"] == "trained"].groupby("facet"):
        cell = best_cell(cells)
        lines.append(
            f"{facet}: {describe_cell(cell)}: {100 * cell['value']:.1f}% "
            f"[{100 * cell['ci_low']:.1f}, {100 * cell['ci_high']:.1f}], "
            f"{cell['n_pairs']:,} pairs of {cell['n_prompts']:,} prompts"
        )
        if blocks := candidate_blocks(tables["measures"], cell):
            lines.append(
                f"  blocks of this curve that may be its best (95% confidence set): {', '.join(map(str, blocks))}"
            )
        lines += _pairs_needed(tables["blocks"], cell)
    if "linearity" in tables:
        lines += _linearity(tables["linearity"])
    comparisons = tables["comparisons"]
    return [*lines, *comparisons.loc[comparisons["scope"] == "overall", "statement"]]


def candidate_blocks(measures: pd.DataFrame, cell: pd.Series) -> list[int]:
    """List the blocks of the 95% confidence set of the best block of a cell's curve."""
    rows = measures[
        (measures["metric"] == "may_be_best") & (measures["value"] == 1) & (measures["control"] == "trained")
    ]
    for key in ("facet", "stream", "reduction", "sigma"):
        rows = rows[rows[key] == cell[key]]
    return sorted(rows["block"].astype(int))


def _pairs_needed(blocks: pd.DataFrame, cell: pd.Series) -> Iterator[str]:
    """State how many test pairs would distinguish the selected block from the next best."""
    rows = blocks[blocks["chosen_cell"] == cell["cell"]]
    if len(rows):
        row = rows.iloc[int(rows["difference"].to_numpy().argmin())]
        yield (
            f"  to distinguish it from block {row['block']} by {100 * row['delta']:g} points (power 80%, level 5%): "
            f"{row['pairs_needed']:,} test pairs of {row['prompts_needed']:,} prompts; here are "
            f"{row['n_pairs']:,}"
        )


def _linearity(table: pd.DataFrame) -> Iterator[str]:
    """Count, for each facet, the cells where the network is better, and those where both are equivalent."""
    for facet, cells in table.groupby("facet"):
        more = cells["verdict"] == ABOVE
        yield (
            f"{facet}, {cells['other'].iloc[0]} less {cells['probe'].iloc[0]}: above in {int(more.sum())} of "
            f"{len(cells)} cells after Holm's correction; the same to within {100 * cells['margin'].iloc[0]:g} points "
            f"in {int(cells['equivalent'].sum())}"
        )
