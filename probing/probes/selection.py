"""What strengths are chosen by: grids, and folds that never cut a prompt group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from sklearn.model_selection import GroupKFold

FOLDS = 5


def grouped_folds(groups: ArrayLike, folds: int = FOLDS) -> Int[np.ndarray, " pair"]:
    """Give each pair the number of the fold that holds it out; a prompt group is in one fold.

    The folds are of nearly equal size, and depend on the groups' names and sizes alone, not on the pairs' order.

    Args:
        groups: Prompt group of each pair, (pair,).
        folds: Number of folds.

    Raises:
        ValueError: Fewer groups than folds.
    """
    groups = np.asarray(groups)
    distinct = len(np.unique(groups))
    if distinct < folds:
        raise ValueError(f"Got {distinct} prompt groups, expected at least one a fold ({folds}); use more prompts.")
    fold_of = np.empty(len(groups), dtype=np.int64)
    for fold, (_, held_out) in enumerate(GroupKFold(folds).split(groups, groups=groups)):
        fold_of[held_out] = fold
    for fold in range(folds):
        check_apart(groups[fold_of == fold], groups[fold_of != fold], f"fold {fold}", "the other folds")
    return fold_of


def check_alphas(alphas: Sequence[float]) -> Float[np.ndarray, " alpha"]:
    """Return a grid of strengths as an array.

    Raises:
        ValueError: It is empty, or a strength is not above 0.
    """
    checked = np.asarray(alphas, dtype=np.float64)
    if checked.ndim != 1 or len(checked) == 0 or not (checked > 0).all():
        raise ValueError(f"Got alphas {alphas}, expected numbers above 0; give at least one.")
    return checked


def largest_best(scores: Float[np.ndarray, " alpha"], alphas: Float[np.ndarray, " alpha"], *, slack: float) -> int:
    """Find the lowest score; among those within ``slack`` of it, the largest strength."""
    best = np.flatnonzero(scores <= scores.min() + slack)
    return int(best[np.argmax(alphas[best])])


def check_apart(groups: ArrayLike, others: ArrayLike, here: str = "training", there: str = "test") -> None:
    """Refuse a prompt group that lies on both sides.

    Raises:
        ValueError: With the number of shared groups and one of them.
    """
    shared = np.intersect1d(groups, others)
    if len(shared):
        raise ValueError(
            f"Got {len(shared)} prompts in both {here} and {there} (one is {shared[0]!s}), expected none; "
            f"split by prompt."
        )
