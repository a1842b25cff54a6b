"""Refit a probe to resampled prompts or to other labels, all refits in one problem."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Real
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from probing.probes._base import Probe, check_choices, check_training, check_weights, differences
from probing.probes._disk import DiskRows, difference_rows
from probing.probes._logistic import LogisticProbe
from probing.probes._scalings import find_scaling
from probing.probes._solver import Design, LazyWeights, solve


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


def relabelled_margins(
    probe: Probe,
    items: Float[np.ndarray, "item *shape"] | DiskRows,
    rows: Int[np.ndarray, "pair 2"],
    labels: Float[np.ndarray, "pair refit"],
    test_rows: Int[np.ndarray, "test 2"],
    groups: ArrayLike | None = None,
    sample_weight: Real[np.ndarray, " pair"] | None = None,
    *,
    tolerance: float = 1e-9,
) -> Float[np.ndarray, "test refit"]:
    """Refit a probe to other labels at the strength and scaling that it chose; return the margins of test pairs.

    The refits of a logistic probe are one problem: each pair stands in it twice, once for each of its items as the
    chosen one, weighted by its label. Other probes are refitted one by one.

    Args:
        probe: Probe fitted to the same pairs.
        items: Features of all items.
        rows: Rows of each training pair's first and second item.
        labels: Labels in [0, 1], a column a refit.
        test_rows: Rows of each test pair's first and second item.
        groups: Prompt group of each training pair.
        sample_weight: Weight of each training pair.
        tolerance: Relative distance of a refit's objective from its optimum.

    Raises:
        ValueError: As :meth:`Probe.fit_pairs`, or a probe that is not fitted.
    """
    check_is_fitted(probe)
    if not isinstance(probe, LogisticProbe):
        refit = clone(probe)
        if "alphas" in refit.get_params():
            refit.set_params(alphas=(probe.alpha_,), scaling=probe.scaling_)
        refits = (clone(refit).fit_pairs(items, rows, column, groups, sample_weight) for column in labels.T)
        return np.stack([fitted.pair_margins(items, test_rows).mean(axis=1) for fitted in refits], axis=1)
    check_choices(labels.ravel())
    X: Float[np.ndarray, "pair channel"] | DiskRows
    if isinstance(items, DiskRows):
        X, weights = difference_rows(items, rows), check_weights(sample_weight, len(rows))
        weights = weights / weights.sum()
    else:
        X, _, _, weights = check_training(
            LogisticProbe(), differences(items, rows), labels[:, 0], groups, sample_weight
        )
    scaling = find_scaling(probe.scaling_, X, weights)
    scaled = scaling.apply(X)
    twice = scaled.repeated(2) if isinstance(scaled, DiskRows) else np.concatenate([scaled] * 2)
    design = Design.prepare(twice, probe.device)
    targets = np.repeat([1.0, 0.0], len(X))

    def halves(rows: slice) -> Float[np.ndarray, "row refit"]:
        """Weights of pairs by the share that chose the first item, and below them by the share that did not."""
        here = np.arange(rows.start, rows.stop)
        pair = here % len(X)
        share = np.where(here[:, None] < len(X), labels[pair], 1 - labels[pair])
        return np.asarray(weights[pair, None] * share)

    column_weights = LazyWeights(halves, 2 * len(X), np.arange(labels.shape[1]))
    b = solve(design, targets, column_weights, np.full(labels.shape[1], probe.alpha_), tolerance=tolerance)
    coefficients = np.stack([scaling.back(column) for column in design.coefficients(b).T], axis=1)
    if isinstance(items, DiskRows):
        flat = items.flat().as_type(np.float64)
        rewards = np.concatenate([flat[part] @ coefficients for part in flat.blocks()])
        return np.asarray(rewards[test_rows[:, 0]] - rewards[test_rows[:, 1]])
    return np.asarray(differences(items, test_rows) @ coefficients)
