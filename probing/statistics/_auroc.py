"""Area under the ROC curve with DeLong's covariance, also when observations come in groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.stats import norm, rankdata


@dataclass(frozen=True)
class Auroc:
    """Areas of several scores on the same observations, and their covariance."""

    areas: Float[np.ndarray, " score"]
    covariance: Float[np.ndarray, "score score"]

    def interval(self, confidence: float = 0.95) -> tuple[Float[np.ndarray, " score"], Float[np.ndarray, " score"]]:
        """Return the two ends of the normal interval of each area, within [0, 1]."""
        half = norm.ppf((1 + confidence) / 2) * np.sqrt(np.diag(self.covariance))
        return np.clip(self.areas - half, 0, 1), np.clip(self.areas + half, 0, 1)


def auroc(
    scores: Float[np.ndarray, "observation *score"],
    labels: Float[np.ndarray, " observation"],
    groups: Shaped[np.ndarray, " observation"] | None = None,
) -> Auroc:
    """Measure areas under ROC curves and their covariance.

    Without groups the covariance is DeLong's (DeLong et al. 1988), by midranks (Sun and Xu 2014); with groups that of
    Obuchowski (1997), which is DeLong's when each group has one observation.

    Args:
        scores: One score, or one column per score; equal values count one half.
        labels: 1 or 0.
        groups: Prompt of each observation.

    Raises:
        ValueError: Shapes that differ, labels other than 0 and 1, fewer than two observations or groups of a label.
    """
    scores, labels = np.asarray(scores, dtype=float), np.asarray(labels, dtype=float)
    scores = scores[:, None] if scores.ndim == 1 else scores
    if labels.shape != scores.shape[:1] or (groups is not None and np.shape(groups) != labels.shape):
        raise ValueError(f"Each observation has scores, a label and a group, got {scores.shape} and {labels.shape}.")
    if not np.isin(labels, (0.0, 1.0)).all():
        raise ValueError("Labels are 1 or 0; leave out ties.")
    positive = labels == 1
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if min(positives, negatives) < 2:
        raise ValueError(f"An area needs at least two observations of each label, got {positives} and {negatives}.")
    ranks = rankdata(scores, axis=0)
    # For each positive: share of negatives below it. For each negative: share of positives above it.
    above = (ranks[positive] - rankdata(scores[positive], axis=0)) / negatives
    below = 1 - (ranks[~positive] - rankdata(scores[~positive], axis=0)) / positives
    areas = above.mean(axis=0)
    group = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    totals = [
        _group_totals(above - areas, group[positive], group.max() + 1) / positives,
        _group_totals(below - areas, group[~positive], group.max() + 1) / negatives,
    ]
    counts = [len(np.unique(group[positive])), len(np.unique(group[~positive]))]
    if min(counts) < 2:
        raise ValueError("An area needs at least two groups of each label; use more prompts.")
    covariance = sum(n / (n - 1) * part.T @ part for n, part in zip(counts, totals, strict=True))
    both = len(np.unique(group))
    cross = both / (both - 1) * totals[0].T @ totals[1]
    return Auroc(areas, covariance + cross + cross.T)


def _group_totals(
    values: Float[np.ndarray, "row score"], group: Int[np.ndarray, " row"], groups: int | np.integer
) -> Float[np.ndarray, "group score"]:
    return np.stack([np.bincount(group, column, groups) for column in values.T], axis=1)
