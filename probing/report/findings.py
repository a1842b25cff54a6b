"""Results in words and numbers: the best cell of each facet, and every statement of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from probing.report.grid import Grid, cell, grid
from probing.result_tables import best_cell

_TREND = "fit"
"""Kind of a row of the scaling table with a trend over models; its ``head`` is part of what it is about."""
_SITE = ("stream", "reduction", "sigma")
_CURVE = ["model", "facet", *_SITE]
_NEEDED = {*_CURVE, "control", "block", "cv_accuracy", "value", "ci_low", "ci_high", "n_pairs", "n_prompts"}


@dataclass(frozen=True)
class Statement:
    """A sentence about a result, and whether it is about the whole or about a part such as one stream."""

    text: str
    overall: bool


def statements(table: pd.DataFrame) -> list[Statement]:
    """List a table's statements, each once, with the model, facet and site that they are about."""
    if "statement" not in table:
        return []
    several = "model" in table and table["model"].nunique() > 1
    by_text: dict[str, Statement] = {}
    for row in table[table["statement"].notna() & (table["statement"] != "")].to_dict("records"):
        text = str(row["statement"])
        facet = cell(row.get("facet"))
        if facet and not text.startswith(f"{facet}:"):
            site = [("σ = " if name == "sigma" else "") + word for name in _SITE if (word := cell(row.get(name)))]
            head = [f"head {row['head']}"] if row.get("kind") == _TREND else []
            text = f"{', '.join([facet, *head, *site])}: {text}"
        if several and cell(row["model"]):
            text = f"{row['model']}, {text}"
        # Trends of the head on the best block are about the whole; those at one depth are not.
        overall = row["head"] == "best" if row.get("kind") == _TREND else row.get("scope", "overall") == "overall"
        # The best of one stream may be the best of all: of two equal statements, keep the overall one.
        if overall or text not in by_text:
            by_text.pop(text, None)
            by_text[text] = Statement(text, overall)
    return list(by_text.values())


def best_cells(tables: Mapping[str, pd.DataFrame]) -> Grid | None:
    """Show the cell of each model and facet that is best on training pairs, with its accuracy on test pairs.

    Args:
        tables: By name; ``reward_curve`` is read, and ``measures`` for the blocks that may be the best.

    Returns:
        One row a model and facet; None if there is no reward curve with the needed columns.
    """
    curve = tables.get("reward_curve")
    if curve is None or not set(curve.columns) >= _NEEDED:
        return None
    trained = curve[(curve["control"] == "trained") & curve["cv_accuracy"].notna()]
    rows = []
    for _, cells in trained.groupby(["model", "facet"], dropna=False):
        row = best_cell(cells)
        rows.append(
            {
                "model": row["model"],
                "facet": row["facet"],
                "accuracy": f"{100 * row['value']:.1f}%",
                "95% interval": f"[{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]",
                "stream": f"{row['stream']} {row['reduction']}",
                "σ": row["sigma"],
                "block": row["block"],
                "ceiling": f"{100 * row['ceiling']:.1f}%" if pd.notna(row.get("ceiling")) else None,
                "blocks that may be best": _blocks_that_may_be_best(tables.get("measures"), row),
                "pairs": f"{row['n_pairs']:,}",
                "prompts": f"{row['n_prompts']:,}",
            }
        )
    return grid(pd.DataFrame(rows).dropna(axis=1, how="all")) if rows else None


def _blocks_that_may_be_best(measures: pd.DataFrame | None, row: pd.Series) -> str | None:
    """List the blocks of the 95% confidence set of the best block of this cell's curve."""
    if measures is None or not {*_CURVE, "metric", "value", "control", "block"} <= set(measures.columns):
        return None
    keep = (measures["metric"] == "may_be_best") & (measures["value"] == 1) & (measures["control"] == "trained")
    for key in _CURVE:
        keep &= measures[key] == row[key]
    return ", ".join(map(str, sorted(measures.loc[keep, "block"].astype(int)))) or None
