"""What strengths are chosen by: grids, and folds that never cut a prompt group."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

FOLDS = 5


def grouped_folds(groups: ArrayLike, folds: int = FOLDS) -> Int[np.ndarray, " pair"]:
    """Give each pair the number of the fold that holds it out; a prompt group is in one fold.

    The folds are of nearly equal size, and depend on the groups' names and sizes alone, not on the pairs' order: they
    are those of scikit-learn's ``GroupKFold``, found without its loop over all folds for each group.

    Args:
        groups: Prompt group of each pair, (pair,).
        folds: Number of folds.

    Raises:
        ValueError: Fewer groups than folds.
    """
    groups = np.asarray(groups)
    names, member = np.unique(groups, return_inverse=True)
    distinct = len(names)
    if distinct < folds:
        raise ValueError(f"Got {distinct} prompt groups, expected at least one a fold ({folds}); use more prompts.")
    sizes = np.bincount(member)
    # The largest group goes to the lightest fold, the first of equals; then the next.
    lightest = [(0, fold) for fold in range(folds)]
    fold_of_group = np.empty(distinct, dtype=np.int64)
    for group in np.argsort(sizes, kind="stable")[::-1]:
        size, fold = lightest[0]
        fold_of_group[group] = fold
        heapq.heapreplace(lightest, (size + int(sizes[group]), fold))
    fold_of = fold_of_group[member]
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
