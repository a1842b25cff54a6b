"""Which curves and panels of a table a figure shows, and how its titles describe them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from probing.plots.text import shown_name, shown_names

CURVE = ["stream", "reduction", "sigma"]


class NothingToDraw(ValueError):
    """A table has nothing of what a figure shows: it was measured with less, which is no mistake."""


def facets_in(rows: pd.DataFrame) -> list[str]:
    """List the facets of a table: every pair together (``all``) first."""
    return sorted(rows["facet"].unique(), key=lambda facet: (facet != "all", facet))


def facet_rows(table: pd.DataFrame, facet: str) -> pd.DataFrame:
    """Select the rows of a facet.

    Raises:
        ValueError: The table has no such facet.
    """
    rows = table[table["facet"] == facet]
    if rows.empty:
        raise ValueError(f"Got facet {facet!r}, expected one of {', '.join(sorted(table['facet'].unique()))}.")
    return rows


def best_curve(rows: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Select the rows of the curve whose best cell has the highest out-of-fold accuracy on training pairs.

    Args:
        rows: Rows of one facet.
        cells: The cells to choose among, with ``cv_accuracy``.
    """
    best = cells.iloc[int(cells["cv_accuracy"].to_numpy(dtype=float).argmax())]
    return rows[(rows[CURVE] == best[CURVE]).all(axis=1)]


def panels_of(cells: pd.DataFrame) -> list[tuple[str, str]]:
    """List (stream, reduction), image first: a stream's means, or its first reduction if it has none."""
    panels: list[tuple[str, str]] = []
    for stream in sorted(cells["stream"].unique(), key=lambda stream: (stream != "image", stream)):
        names = list(dict.fromkeys(cells.loc[cells["stream"] == stream, "reduction"]))
        panels += [(str(stream), str(name)) for name in ([n for n in names if n.startswith("mean")] or names[:1])]
    return panels


def describe_tokens(stream: object, reduction: object) -> str:
    """``image tokens (mean)``."""
    return f"{stream} tokens ({str(reduction).replace('_', ' ')})"


def describe_curve(row: Mapping[str, Any] | pd.Series) -> str:
    """``image tokens (mean), σ = 0.005``."""
    return f"{describe_tokens(row['stream'], row['reduction'])}, σ = {row['sigma']:g}"


def describe_counts(rows: pd.DataFrame) -> str:
    """``1,000 pairs of 1,000 prompts``; a range where facets have more or fewer."""
    counts = f"{format_range(rows['n_pairs'])} pairs of {format_range(rows['n_prompts'])} prompts"
    return counts + (" a facet" if rows["facet"].nunique() > 1 else "")


def describe_models(rows: pd.DataFrame) -> str:
    """Name the models of the rows, or ``the backbone`` if the table names none."""
    return shown_names(rows["model"]) or "the backbone"


def panel_title(facet: str, panel: str, rows: pd.DataFrame, between: str = ": ") -> str:
    """Two lines: facet and panel, then the counts of pairs and prompts."""
    return f"{shown_name(facet)}{between}{panel}\n{describe_counts(rows)}"


def format_range(column: pd.Series) -> str:
    """``1,000``, or ``800 to 1,000``."""
    low, high = int(column.min()), int(column.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
