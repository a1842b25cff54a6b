"""Folds keep prompt groups whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold

from probing.probes import check_apart, grouped_folds


@given(st.lists(st.integers(0, 30), min_size=60, max_size=120), st.integers(2, 5))
def test_a_prompt_is_in_one_fold_and_every_fold_is_used(prompts, folds):
    groups = np.array([*prompts, *range(5)])
    fold_of = grouped_folds(groups, folds)
    assert all(len(np.unique(fold_of[groups == group])) == 1 for group in np.unique(groups))
    assert sorted(np.unique(fold_of)) == list(range(folds))


@given(st.lists(st.integers(0, 30), min_size=60, max_size=120), st.integers(2, 5))
def test_the_folds_are_scikit_learns(prompts, folds):
    groups = np.array([*prompts, *range(5)])
    for fold, (_, held_out) in enumerate(GroupKFold(folds).split(groups, groups=groups)):
        assert set(np.flatnonzero(grouped_folds(groups, folds) == fold)) == set(held_out)


def test_the_order_of_pairs_does_not_move_a_prompt():
    groups = np.array([f"p{i % 37}" for i in range(200)])
    order = np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(grouped_folds(groups)[order], grouped_folds(groups[order]))


def test_sizes_are_nearly_equal():
    sizes = np.bincount(grouped_folds(np.arange(1000) // 2))
    assert sizes.max() - sizes.min() <= 2


def test_too_few_prompts_are_refused():
    with pytest.raises(ValueError, match="Got 4 prompt groups"):
        grouped_folds(np.arange(40) % 4)


def test_a_prompt_on_both_sides_is_refused():
    check_apart(["a", "b"], ["c"])
    with pytest.raises(ValueError, match=r"1 prompts in both training and test \(one is b\)"):
        check_apart(["a", "b"], ["b", "c"])
