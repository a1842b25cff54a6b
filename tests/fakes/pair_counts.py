"""A made-up experiment with its figure: what a new experiment needs beside one entry in the registry."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from probing.analysis.engine import Context, Tables


@dataclass(frozen=True)
class PairCountSettings:
    """What is counted.

    Attributes:
        ties: Also count ties.
    """

    ties: bool = False


def run_pair_counts(context: Context, settings: PairCountSettings) -> Tables:
    """Count the pairs of each facet."""
    pairs = context.pairs if settings.ties else context.pairs[context.pairs["choice"] != 0.5]
    counts = pairs.groupby("facet").size()
    return {"pair_counts": pd.DataFrame({"facet": counts.index, "value": counts.to_numpy()})}


def figure_pair_counts(table: pd.DataFrame) -> Figure:
    """Draw the counts as bars."""
    figure = Figure()
    figure.subplots().bar(table["facet"], table["value"])
    return figure
