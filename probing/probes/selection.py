"""Folds that never cut a prompt group."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int


def grouped_folds(
    groups: np.ndarray, folds: int = 5, seed: int = 0
) -> Iterator[tuple[Int[np.ndarray, "train"], Int[np.ndarray, "held_out"]]]:
    """Cut pairs into folds by whole groups, drawn at random and of near-equal numbers of groups.

    Args:
        groups: (pair,) the prompt of each.
        folds: How many; fewer groups than that give as many folds as groups.
        seed: Of the assignment.

    Yields:
        Row numbers to train on, and row numbers held out.

    Raises:
        ValueError: Fewer than two groups.
    """
    names, code = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"Folds by prompt need at least 2 prompts, got {len(names)}.")
    folds = min(folds, len(names))
    fold_of_group = np.random.default_rng(seed).permutation(len(names)) % folds
    fold = fold_of_group[code]
    for held_out in range(folds):
        yield np.flatnonzero(fold != held_out), np.flatnonzero(fold == held_out)
