"""Which of a table's many series a figure shows, when it shows one a facet; and how it says what it shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

SERIES = ["stream", "reduction", "sigma"]


class NothingToDraw(ValueError):
    """A table has nothing of what a figure shows: it was measured with less, which is no mistake."""


def best_series(rows: pd.DataFrame, cells: pd.DataFrame, keys: list[str] | None = None) -> pd.DataFrame:
    """Keep the rows of the series with the cell of highest out-of-fold accuracy on training pairs.

    Args:
        rows: Of one facet; those of other series are left out.
        cells: Rows among which the best is looked for, with ``cv_accuracy``.
        keys: What makes a series.
    """
    keys = keys or SERIES
    best = cells.iloc[int(cells["cv_accuracy"].to_numpy(dtype=float).argmax())]
    for key in keys:
        rows = rows[rows[key] == best[key]]
    return rows


def say_series(row: Mapping[str, Any] | pd.Series) -> str:
    """``image tokens (mean), σ = 0.005``."""
    return f"{row['stream']} tokens ({str(row['reduction']).replace('_', ' ')}), σ = {row['sigma']:g}"


def say_counts(rows: pd.DataFrame) -> str:
    """``1,000 pairs of 1,000 prompts``; where facets have more or fewer, from the least to the most of them."""

    def said(name: str) -> str:
        least, most = int(rows[name].min()), int(rows[name].max())
        return f"{least:,}" if least == most else f"{least:,} to {most:,}"

    counted = f"{said('n_pairs')} pairs of {said('n_prompts')} prompts"
    return counted + (" a facet" if rows["facet"].nunique() > 1 else "")
