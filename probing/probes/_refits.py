"""Refit a probe to bootstrap resamples of its training prompts, to measure the spread of its direction."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from probing.probes._base import check_choices, check_training
from probing.probes._logistic import LogisticProbe
from probing.probes._scalings import find_scaling
from probing.probes._solver import Design, solve


def bootstrap_refits(
    probe: LogisticProbe,
    X: Float[np.ndarray, "pair channel"],
    y: Float[np.ndarray, " pair"],
    groups: ArrayLike | None = None,
    *,
    resamples: int = 100,
    seed: int = 0,
    tolerance: float = 1e-9,
) -> Float[np.ndarray, "resample channel"]:
    """Fit the logistic probe to cluster bootstrap resamples of its prompt groups, all in one problem.

    Refits use the strength and the scaling that the probe chose; a resample weights each prompt's pairs by the number
    of times the prompt is drawn. ``X @ refits.T`` are the margins of each refit; their spread is due to the training
    prompts.

    Args:
        probe: Probe fitted to the same pairs.
        X: Differences that it was fitted to.
        y: Choices that it was fitted to.
        groups: Prompt groups that it was fitted to.
        resamples: Number of resamples.
        seed: Seed of the resamples.
        tolerance: Relative distance of a refit's objective from its optimum.

    Returns:
        Coefficients of each refit, for features in their own units.

    Raises:
        ValueError: As :meth:`LogisticProbe.fit`, or a probe that is not fitted.
    """
    check_is_fitted(probe)
    X, y, groups, pair_weights = check_training(LogisticProbe(), X, y, groups, None)
    check_choices(y)
    scaling = find_scaling(probe.scaling_, X, pair_weights)
    design = Design.prepare(scaling.apply(X), probe.device)
    _, member = np.unique(groups, return_inverse=True)
    distinct = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = np.stack([np.bincount(rng.integers(distinct, size=distinct), minlength=distinct) for _ in range(resamples)])
    weights = drawn.T[member].astype(np.float64)
    b = solve(design, y, weights / weights.sum(axis=0), np.full(resamples, probe.alpha_), tolerance=tolerance)
    return np.stack([scaling.back(column) for column in design.coefficients(b).T])
