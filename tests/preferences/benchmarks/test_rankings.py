"""Rankings as comparisons, against itertools."""

from __future__ import annotations

from itertools import combinations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probing.errors import UserError
from probing.preferences.benchmarks.rankings import comparisons_of

RANKINGS = st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=6), min_size=1, max_size=5)


def lists_of(rankings) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "list_id": [f"list{i}" for i in range(len(rankings))],
            "images": [[f"{i}-{j}" for j in range(len(ranks))] for i, ranks in enumerate(rankings)],
            "ranks": rankings,
            "words": [f"prompt {i}" for i in range(len(rankings))],
            "stars": [[10 * r for r in ranks] for ranks in rankings],
        }
    )


@given(RANKINGS)
def test_every_pair_comes_once_and_the_lower_rank_wins(rankings):
    made = comparisons_of(lists_of(rankings), images="images", ranks="ranks", by_list=("words",), by_item=("stars",))
    expected = [
        (f"list{i}", f"{i}-{a}", f"{i}-{b}", 0.5 if x == y else float(x < y), f"prompt {i}", 10 * x, 10 * y)
        for i, ranks in enumerate(rankings)
        for (a, x), (b, y) in combinations(enumerate(ranks), 2)
    ]
    columns = ["list_id", "first", "second", "choice", "words", "stars_first", "stars_second"]
    assert list(made[columns].itertuples(index=False, name=None)) == expected
    assert made["pair_id"].is_unique


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("ranks", [1], "'list1' has 3 pictures and 1 of ranks"),
        ("stars", [1, 2], "'list1' has 3 pictures and 2 of stars"),
        ("images", ["a", "a", "b"], "'list1' has a picture twice"),
    ],
)
def test_lists_that_do_not_fit_are_named(column, value, message):
    lists = lists_of([[1, 2], [1, 2, 3]])
    lists.at[1, column] = value
    with pytest.raises(UserError, match=message):
        comparisons_of(lists, images="images", ranks="ranks", by_item=("stars",))
