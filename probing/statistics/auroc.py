"""Area under the ROC curve with DeLong's covariance, also when observations come in groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import norm, rankdata


@dataclass(frozen=True)
class Auroc:
    """Areas of several scores on the same observations, (score,), and their covariance, (score, score)."""

    areas: np.ndarray
    covariance: np.ndarray

    def interval(self, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Normal interval of each area, within [0, 1]."""
        half = norm.ppf((1 + confidence) / 2) * np.sqrt(np.diag(self.covariance))
        return np.clip(self.areas - half, 0, 1), np.clip(self.areas + half, 0, 1)

    def difference(self, first: int = 0, second: int = 1) -> tuple[float, float, float]:
        """Give the difference of two areas, its standard error and its two-sided p-value."""
        contrast = np.zeros(len(self.areas))
        contrast[[first, second]] = 1.0, -1.0
        difference = float(contrast @ self.areas)
        error = float(np.sqrt(max(contrast @ self.covariance @ contrast, 0.0)))
        if error == 0:
            return difference, 0.0, float(difference == 0)
        return difference, error, float(2 * norm.sf(abs(difference) / error))


def auroc(
    scores: Float[np.ndarray, "observation score"],
    labels: Float[np.ndarray, " observation"],
    groups: np.ndarray | None = None,
) -> Auroc:
    """Measure areas under ROC curves and their covariance.

    Without groups the covariance is DeLong's (DeLong et al. 1988), by midranks (Sun and Xu 2014); with groups that of
    Obuchowski (1997), which is DeLong's when each group holds one observation.

    Args:
        scores: One column a scorer; equal scores count one half.
        labels: 1 or 0.
        groups: The prompt of each observation.

    Raises:
        ValueError: Shapes that do not fit, labels other than 0 and 1, fewer than two of either label, or of groups.
    """
    scores, labels = np.asarray(scores, dtype=float), np.asarray(labels, dtype=float)
    scores = scores[:, None] if scores.ndim == 1 else scores
    if labels.shape != scores.shape[:1] or (groups is not None and np.shape(groups) != labels.shape):
        raise ValueError(f"Each observation has scores, a label and a group, got {scores.shape} and {labels.shape}.")
    if not np.isin(labels, (0.0, 1.0)).all():
        raise ValueError("Labels are 1 or 0; leave out ties.")
    positive = labels == 1
    wins, losses = int(positive.sum()), int((~positive).sum())
    if min(wins, losses) < 2:
        raise ValueError(f"An area needs at least two observations of each label, got {wins} and {losses}.")
    whole = rankdata(scores, axis=0)
    # Of each positive: share of negatives it lies above. Of each negative: share of positives that lie above it.
    of_positive = (whole[positive] - rankdata(scores[positive], axis=0)) / losses
    of_negative = 1 - (whole[~positive] - rankdata(scores[~positive], axis=0)) / wins
    areas = of_positive.mean(axis=0)
    group = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    parts = [
        _group_totals(of_positive - areas, group[positive], group.max() + 1) / wins,
        _group_totals(of_negative - areas, group[~positive], group.max() + 1) / losses,
    ]
    counts = [len(np.unique(group[positive])), len(np.unique(group[~positive]))]
    if min(counts) < 2:
        raise ValueError("An area needs at least two groups of each label; use more prompts.")
    covariance = sum(n / (n - 1) * part.T @ part for n, part in zip(counts, parts, strict=True))
    both = len(np.unique(group))
    cross = both / (both - 1) * parts[0].T @ parts[1]
    return Auroc(areas, covariance + cross + cross.T)


def _group_totals(values: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    return np.stack([np.bincount(group, column, groups) for column in values.T], axis=1)
