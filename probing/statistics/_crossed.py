"""Means over prompts and over draws, such as shuffles, that both vary."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped
from scipy.stats import t as student

from probing.statistics._groups import CONFIDENCE, Interval, sums_by_group


def crossed_interval(
    values: Float[np.ndarray, "pair draw"], groups: Shaped[np.ndarray, " pair"], *, confidence: float = CONFIDENCE
) -> Interval:
    """Estimate the mean over pairs and draws, with an interval for other groups and other draws.

    The variance of the mean is that over groups plus that over draws less that of their interaction, which both contain
    (Owen 2007), and no less than either of the two; Student's quantile is that of the smaller number less one.

    Args:
        values: One row a pair, one column a draw; NaN, in whole rows, is left out.
        groups: Prompt of each pair.
        confidence: Confidence level of the interval.

    Raises:
        ValueError: Fewer than two groups or draws, or no value.
    """
    values = np.asarray(values, dtype=float)
    values, groups = values[~np.isnan(values[:, 0])], np.asarray(groups)[~np.isnan(values[:, 0])]
    draws = values.shape[1]
    if draws < 2:
        raise ValueError(f"An interval over draws needs at least 2 of them, got {draws}.")
    by_group, _ = sums_by_group(values, groups)
    n_groups, n = len(by_group.sums), float(len(values))
    of_draw = by_group.estimate
    mean = float(of_draw.mean())
    residuals = by_group.sums - by_group.counts * mean
    over_groups = float((residuals.mean(axis=1) ** 2).sum()) / n**2 * n_groups / (n_groups - 1)
    over_draws = float(of_draw.var(ddof=1)) / draws
    interaction = residuals - residuals.mean(axis=1, keepdims=True) - by_group.counts * (of_draw - mean)
    both = float((interaction**2).sum()) / n**2 / draws * n_groups / (n_groups - 1) / (draws - 1)
    variance = max(over_groups + over_draws - both, over_groups, over_draws)
    half = float(student.ppf((1 + confidence) / 2, min(n_groups, draws) - 1)) * np.sqrt(variance)
    return Interval(*(np.asarray(end)[()] for end in (mean, mean - half, mean + half)))
