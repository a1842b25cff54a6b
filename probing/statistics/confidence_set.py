"""Which block is best? Those that the data cannot tell from the best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from probing.statistics.bootstrap import RESAMPLES, resampled_means, sums_by_group


@dataclass(frozen=True)
class ConfidenceSet:
    """Candidates that may be the best.

    Attributes:
        members: (candidate,) whether it is in the set.
        p_values: (candidate,) the largest p-value of a test that let it go, or was not let go by; 1 for the last one.
    """

    members: Bool[np.ndarray, " candidate"]
    p_values: Float[np.ndarray, " candidate"]


def best_candidates(
    values: Float[np.ndarray, "pair candidate"],
    groups: np.ndarray,
    *,
    level: float = 0.05,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ConfidenceSet:
    """Find the model confidence set of Hansen, Lunde and Nason (2011): it holds the best with chance 1 − level.

    As long as it is refuted that all remaining candidates are equally good, the worst is let go. The test is of the
    largest standardised shortfall from the mean of those that remain (their T_max), by cluster bootstrap over groups.

    Args:
        values: Outcome of each pair under each candidate; all candidates on the same pairs, NaN left out.
        groups: The prompt of each pair.
        level: Chance that the best is missed.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ValueError: Candidates on different pairs, or what :func:`probing.statistics.cluster_bootstrap` refuses.
    """
    values = np.asarray(values, dtype=float)
    gone = np.isnan(values)
    if values.ndim != 2 or (gone != gone[:, :1]).any():
        raise ValueError("Candidates are compared on the same pairs; leave out pairs that one of them lacks.")
    by_group, _ = sums_by_group(values, groups)
    return from_resamples(by_group.estimate, resampled_means(by_group, resamples, seed, joint=True), level=level)


def from_resamples(
    estimate: Float[np.ndarray, " candidate"], drawn: Float[np.ndarray, "resample candidate"], *, level: float = 0.05
) -> ConfidenceSet:
    """Find the set from estimates and joint resamples of them; see :func:`best_candidates`."""
    noise = drawn - estimate
    remaining = list(range(len(estimate)))
    p_values = np.ones(len(estimate))
    largest = 0.0
    while len(remaining) > 1:
        shortfall = estimate[remaining].mean() - estimate[remaining]
        drawn_shortfall = noise[:, remaining].mean(axis=1, keepdims=True) - noise[:, remaining]
        error = np.sqrt((drawn_shortfall**2).mean(axis=0))
        # Candidates that always agree differ by nothing, with no error.
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
