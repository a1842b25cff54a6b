"""Choose a strength: the grid, folds that keep prompt groups whole, the best score."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

FOLDS = 5


def grouped_folds(groups: ArrayLike, folds: int = FOLDS) -> Int[np.ndarray, " pair"]:
    """Return the number of the fold that holds out each pair; a prompt group is in one fold.

    Folds have nearly equal sizes, and depend on the groups' names and sizes, not on the order of pairs. They are those
    of scikit-learn's ``GroupKFold``, computed without its loop over all folds for each group.

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
        raise ValueError(f"Got {distinct} prompt groups, expected at least one per fold ({folds}); use more prompts.")
    sizes = np.bincount(member)
    # Assign groups from the largest to the smallest, each to the smallest fold; the first one of equals.
    fold_sizes = [(0, fold) for fold in range(folds)]
    fold_of_group = np.empty(distinct, dtype=np.int64)
    for group in np.argsort(sizes, kind="stable")[::-1]:
        size, fold = fold_sizes[0]
        fold_of_group[group] = fold
        heapq.heapreplace(fold_sizes, (size + int(sizes[group]), fold))
    fold_of = fold_of_group[member]
    for fold in range(folds):
        check_apart(groups[fold_of == fold], groups[fold_of != fold], f"fold {fold}", "the other folds")
    return fold_of


def check_alphas(alphas: Sequence[float]) -> Float[np.ndarray, " alpha"]:
    """Return a grid of strengths as an array.

    Raises:
        ValueError: An empty grid, or a strength that is not above 0.
    """
    checked = np.asarray(alphas, dtype=np.float64)
    if checked.ndim != 1 or len(checked) == 0 or not (checked > 0).all():
        raise ValueError(f"Got alphas {alphas}, expected numbers above 0; give at least one.")
    return checked


def largest_best(scores: Float[np.ndarray, " alpha"], alphas: Float[np.ndarray, " alpha"], *, slack: float) -> int:
    """Return the index of the largest strength among the scores within ``slack`` of the lowest one."""
    best = np.flatnonzero(scores <= scores.min() + slack)
    return int(best[np.argmax(alphas[best])])


def check_apart(first: ArrayLike, second: ArrayLike, first_name: str = "training", second_name: str = "test") -> None:
    """Check that two sides share no prompt group.

    Raises:
        ValueError: They do; the message has the number of shared groups and one of them.
    """
    shared = np.intersect1d(first, second)
    if len(shared):
        raise ValueError(
            f"Got {len(shared)} prompts in both {first_name} and {second_name} (one is {shared[0]!s}), expected none; "
            f"split by prompt."
        )
