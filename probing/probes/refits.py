"""A probe fitted anew to resamples of prompts: how far its direction depends on which prompts were asked."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from probing.probes.base import check_shares, check_training
from probing.probes.logistic import LogisticProbe
from probing.probes.scalings import find_scaling
from probing.probes.solver import prepare, solve


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

    Strength and scaling stay those that the probe chose; a resample weighs each prompt's pairs by how often it was
    drawn. Of all margins of a pair, ``X @ refits.T`` gives the spread that comes from the training prompts.

    Args:
        probe: Fitted to these very pairs.
        X: As it was fitted to; and so the next two.
        y: Choices.
        groups: Prompt groups.
        resamples: How many.
        seed: Of the draws.
        tolerance: Relative distance from its optimum at which a refit's objective is left.

    Returns:
        Coefficients of each refit, for features in their own units.

    Raises:
        ValueError: As :meth:`LogisticProbe.fit`, or the probe is not fitted.
    """
    check_is_fitted(probe)
    X, y, groups, given = check_training(LogisticProbe(), X, y, groups, None)
    check_shares(y)
    scaling = find_scaling(probe.scaling_, X, given)
    design = prepare(scaling.apply(X), probe.device)
    _, member = np.unique(groups, return_inverse=True)
    distinct = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = np.stack([np.bincount(rng.integers(distinct, size=distinct), minlength=distinct) for _ in range(resamples)])
    weights = drawn.T[member].astype(np.float64)
    found = solve(design, y, weights / weights.sum(axis=0), np.full(resamples, probe.alpha_), tolerance=tolerance)
    return np.stack([scaling.back(column) for column in design.coefficients(found).T])
