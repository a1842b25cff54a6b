"""Outcomes of pairs: hand-worked cases and symmetries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from probing.statistics import outcomes

PAIRS = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        arrays.arrays(np.float64, n, elements=st.sampled_from([-2.0, -1e-300, -0.0, 0.0, 0.5, 3.0])),
        arrays.arrays(np.float64, n, elements=st.sampled_from([0.0, 0.5, 1.0])),
    )
)


def test_a_hand_worked_case():
    margins = np.array([2.0, 2.0, -1.0, -1.0, 0.0, 0.0, 5.0])
    choices = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.5])
    np.testing.assert_array_equal(outcomes(margins, choices), [1, 0, 0, 1, 0.5, 0.5, np.nan])
    np.testing.assert_array_equal(outcomes(margins, choices, tie_rule="wrong"), [1, 0, 0, 1, 0, 0, np.nan])


@given(PAIRS)
def test_a_margin_and_its_negation_share_one_point(pairs):
    margins, choices = pairs
    both = outcomes(margins, choices) + outcomes(-margins, choices)
    np.testing.assert_array_equal(both[choices != 0.5], 1.0)


@given(PAIRS)
def test_swapping_the_sides_of_a_pair_changes_nothing(pairs):
    margins, choices = pairs
    for rule in ("half", "wrong"):
        np.testing.assert_array_equal(
            outcomes(margins, choices, tie_rule=rule), outcomes(-margins, 1 - choices, tie_rule=rule)
        )


@given(PAIRS, st.randoms(use_true_random=False))
def test_order_changes_nothing(pairs, random):
    margins, choices = pairs
    order = random.sample(range(len(margins)), len(margins))
    np.testing.assert_array_equal(outcomes(margins, choices)[order], outcomes(margins[order], choices[order]))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("margins", "choices", "rule", "message"),
    [
        ([1.0], [1.0], "lenient", "known are half, wrong"),
        ([1.0, 2.0], [1.0], "half", "one margin and one choice"),
        ([np.nan], [1.0], "half", "must be finite"),
    ],
)
def test_bad_input_is_refused(margins, choices, rule, message):
    with pytest.raises(ValueError, match=message):
        outcomes(margins, choices, tie_rule=rule)
