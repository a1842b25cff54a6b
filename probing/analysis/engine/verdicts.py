"""Verdicts: p-values corrected over a named family, and one rule that decides a statement and its mark alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from probing.result_tables import DECIDED
from probing.statistics import LEVEL, holm

MIN_PROMPTS = 20
"""No verdict is given on fewer test prompts."""
ABOVE, BELOW = DECIDED
OPEN, TOO_LITTLE = "not distinguished", "too little data"


def correct(table: pd.DataFrame, estimate: str, *, by: Sequence[str] = (), prefix: str = "") -> pd.DataFrame:
    """Correct p-values by Holm over a family, and decide each row.

    Args:
        table: ``PREFIXp_value`` (NaN: not tested, no part of a family), ``PREFIXsmallest_p_value`` (the least that the
            test could have given), ``n_prompts``, and the estimate.
        estimate: Column with the difference from the null, whose sign gives the direction.
        by: Columns whose values divide the table into families and name them; one family without any.
        prefix: Of the columns that are read and added.

    Returns:
        The table with ``PREFIXp_value_holm``, ``PREFIXfamily`` (in words, with its number of tests) and
        ``PREFIXverdict``: ``above`` or ``below`` if the corrected p-value is at most 5%; ``too little data`` on fewer
        than :data:`MIN_PROMPTS` prompts, or where no outcome of these pairs could have been significant; else
        ``not distinguished``. None where nothing was tested.
    """
    adjusted = np.full(len(table), np.nan)
    families = np.full(len(table), None, dtype=object)
    verdicts = np.full(len(table), None, dtype=object)
    p_values = table[f"{prefix}p_value"].to_numpy(dtype=float)
    smallest = table[f"{prefix}smallest_p_value"].to_numpy(dtype=float)
    enough = table["n_prompts"].to_numpy(dtype=float) >= MIN_PROMPTS
    signs = np.sign(table[estimate].to_numpy(dtype=float))
    groups = np.zeros(len(table), dtype=int)
    if by:
        groups = table.groupby(list(by), dropna=False, sort=False).ngroup().to_numpy(dtype=int)
    tested = ~np.isnan(p_values)
    for group in np.unique(groups[tested]):
        rows = np.flatnonzero(tested & (groups == group))
        adjusted[rows] = holm(p_values[rows])
        name = ", ".join(f"{column} {table[column].iloc[rows[0]]}" for column in by)
        families[rows] = f"{name or 'all rows'}: {len(rows)} tests"
        possible = enough[rows] & (_smallest_adjusted(p_values[rows], smallest[rows]) <= LEVEL)
        significant = adjusted[rows] <= LEVEL
        words = np.where(signs[rows] > 0, ABOVE, BELOW)
        verdicts[rows] = np.where(~possible, TOO_LITTLE, np.where(significant, words, OPEN))
    corrected = {"p_value_holm": adjusted, "family": families, "verdict": verdicts}
    return table.assign(**{f"{prefix}{name}": values for name, values in corrected.items()})


def _smallest_adjusted(p_values: np.ndarray, smallest: np.ndarray) -> np.ndarray:
    """Return the least corrected p-value that each test could have had beside the others' results."""
    ordered = np.sort(p_values)
    smaller = np.minimum(np.searchsorted(ordered, smallest, side="left"), len(p_values) - 1)
    return smallest * (len(p_values) - smaller)


WORDS = {
    ABOVE: "is above",
    BELOW: "is below",
    OPEN: "is not distinguished from",
    TOO_LITTLE: "has too little data to compare with",
}
"""How one thing compares with another, by verdict."""


def format_p_value(verdict: str, corrected: float) -> str:
    """Return ``, p = … after Holm`` beside what is not distinguished: its interval, uncorrected, may leave out zero."""
    return f", p = {corrected:.2g} after Holm" if verdict == OPEN else ""
