"""McNemar's test for two probes on the same pairs, when pairs come in groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from scipy.stats import chi2

from probing.statistics._bootstrap import difference_of


@dataclass(frozen=True)
class McNemar:
    """The test's χ² with one degree of freedom, its p-value, and the number of groups with a mean difference."""

    statistic: float
    p_value: float
    groups: int


def clustered_mcnemar(
    first: Float[np.ndarray, " pair"], second: Float[np.ndarray, " pair"], groups: Shaped[np.ndarray, " pair"]
) -> McNemar:
    """Test whether two probes are equally accurate, as Durkalski et al. (2003).

    A group counts once, by the mean of its differences: χ² = (Σ d_g)² / Σ d_g². With one pair per group this is
    McNemar's statistic without continuity correction.

    Args:
        first: Outcomes of one probe: 1 right, 0 wrong, 0.5 a predicted tie; NaN is left out.
        second: Outcomes of another probe.
        groups: Prompt of each pair.

    Raises:
        ValueError: The lengths differ.
    """
    difference = difference_of(first, second)
    groups = np.asarray(groups)
    if groups.shape != difference.shape:
        raise ValueError(f"Each pair has one group, got {groups.shape} groups for {difference.shape} pairs.")
    untied = ~np.isnan(difference)
    _, code = np.unique(groups[untied], return_inverse=True)
    means = np.bincount(code, difference[untied]) / np.maximum(np.bincount(code), 1)
    squares = float((means**2).sum())
    if squares == 0:
        return McNemar(0.0, 1.0, 0)
    statistic = float(means.sum()) ** 2 / squares
    return McNemar(statistic, float(chi2.sf(statistic, 1)), int((means != 0).sum()))
