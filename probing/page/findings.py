"""What the tables say, in their own words and numbers: the best cell of each facet, and every stated comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from probing.analysis.comparisons import best
from probing.page.grid import Grid, cell, grid

_STATED = ("statement",)
_WHERE = ("stream", "reduction", "sigma")
_PLACE = ["model", "facet", "stream", "reduction", "sigma"]


@dataclass(frozen=True)
class Statement:
    """A sentence of a table, and whether it is about the whole or about a part such as one stream."""

    text: str
    overall: bool


def statements(table: pd.DataFrame) -> list[Statement]:
    """List what a table states in words, each once; of which model, facet and place, the row says."""
    column = next((name for name in _STATED if name in table), None)
    if column is None:
        return []
    several = "model" in table and table["model"].nunique() > 1
    found: dict[str, Statement] = {}
    for row in table[table[column].notna() & (table[column] != "")].to_dict("records"):
        text = str(row[column])
        facet = cell(row.get("facet"))
        if facet and not text.startswith(f"{facet}:"):
            where = ", ".join(_place_word(name, row[name]) for name in _WHERE if name in row and cell(row[name]))
            text = f"{facet}{f', {where}' if where else ''}: {text}"
        if several and cell(row["model"]):
            text = f"{row['model']}, {text}"
        overall = row.get("scope", "overall") == "overall"
        # The best of one stream may be the best of all; then two rows say the same, and the one on the whole stays.
        if overall or text not in found:
            found.pop(text, None)
            found[text] = Statement(text, overall)
    return list(found.values())


def best_cells(tables: Mapping[str, pd.DataFrame]) -> Grid | None:
    """Show the cell of each model and facet that did best on training pairs, with its accuracy on test pairs.

    Args:
        tables: By name; ``reward_curve`` is read, and ``measures`` for the blocks that may be the best.

    Returns:
        One row a model and facet; None if no table has what it takes.
    """
    curve = tables.get("reward_curve")
    needed = {*_PLACE, "control", "block", "cv_accuracy", "value", "ci_low", "ci_high", "n_pairs", "n_prompts"}
    if curve is None or not needed <= set(curve.columns):
        return None
    trained = curve[(curve["control"] == "trained") & curve["cv_accuracy"].notna()]
    rows = []
    for _, cells in trained.groupby(["model", "facet"], dropna=False):
        row = best(cells)
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
                "blocks that may be best": _may_be_best(tables.get("measures"), row),
                "pairs": f"{row['n_pairs']:,}",
                "prompts": f"{row['n_prompts']:,}",
            }
        )
    return grid(pd.DataFrame(rows).dropna(axis=1, how="all")) if rows else None


def _place_word(name: str, value: object) -> str:
    return f"σ = {cell(value)}" if name == "sigma" else cell(value)


def _may_be_best(measures: pd.DataFrame | None, row: pd.Series) -> str | None:
    """List the blocks of the 95% confidence set of the best block of this cell's curve."""
    if measures is None or not {*_PLACE, "metric", "value", "control", "block"} <= set(measures.columns):
        return None
    same = measures[
        (measures["metric"] == "may_be_best") & (measures["value"] == 1) & (measures["control"] == "trained")
    ]
    for key in _PLACE:
        same = same[same[key] == row[key]]
    return ", ".join(map(str, sorted(same["block"].astype(int)))) or None
