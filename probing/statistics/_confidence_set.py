"""The set of candidates, such as blocks, that contains the best one with a given confidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from probing.statistics._bootstrap import RESAMPLES, resampled_means
from probing.statistics._groups import sums_by_group


@dataclass(frozen=True)
class ConfidenceSet:
    """Candidates that may be the best.

    Attributes:
        members: Whether each candidate is in the set.
        p_values: Largest p-value of the tests up to the one that removes the candidate; 1 for the last one.
    """

    members: Bool[np.ndarray, " candidate"]
    p_values: Float[np.ndarray, " candidate"]


def best_candidates(
    values: Float[np.ndarray, "pair candidate"],
    groups: Shaped[np.ndarray, " pair"],
    *,
    level: float = 0.05,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ConfidenceSet:
    """Find the model confidence set of Hansen, Lunde and Nason (2011): it contains the best with chance 1 − level.

    While a test rejects that all remaining candidates are equally good, the worst one is removed. The statistic is the
    largest standardised shortfall from the mean of the remaining candidates (their T_max), its distribution a cluster
    bootstrap over groups.

    Args:
        values: Outcome of each pair under each candidate; all candidates on the same pairs, NaN left out.
        groups: Prompt of each pair.
        level: Chance that the set misses the best.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Raises:
        ValueError: Candidates on different pairs, or as :func:`probing.statistics.mean_interval`.
    """
    values = np.asarray(values, dtype=float)
    missing = np.isnan(values)
    if values.ndim != 2 or (missing != missing[:, :1]).any():
        raise ValueError("Candidates are compared on the same pairs; leave out pairs that one of them lacks.")
    by_group, _ = sums_by_group(values, groups)
    estimate = by_group.estimate
    noise = resampled_means(by_group, resamples, seed) - estimate
    remaining = list(range(len(estimate)))
    p_values = np.ones(len(estimate))
    largest = 0.0
    while len(remaining) > 1:
        shortfall = estimate[remaining].mean() - estimate[remaining]
        drawn_shortfall = noise[:, remaining].mean(axis=1, keepdims=True) - noise[:, remaining]
        error = np.sqrt((drawn_shortfall**2).mean(axis=0))
        # Candidates that agree on every pair differ by 0, with no error.
        certain = error <= 1e-12
        scale = np.where(certain, 1.0, error)
        t = np.where(certain, np.where(shortfall > 1e-12, np.inf, 0.0), shortfall / scale)
        null = np.where(certain, 0.0, drawn_shortfall / scale).max(axis=1)
        p = float((np.sum(null >= t.max()) + 1) / (len(null) + 1))
        largest = max(largest, p)
        worst = int(np.argmax(t))
        p_values[remaining[worst]] = largest
        remaining.pop(worst)
    return ConfidenceSet(p_values > level, p_values)
