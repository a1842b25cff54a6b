"""Ceilings and accuracies, on pairs made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probing.preferences import DrawnImages, PreferenceData
from probing.testbed.truth import accuracy, ceilings


def make(probabilities, choices, facets):
    ids = [f"p{number}" for number in range(len(choices))]
    items = pd.DataFrame(
        [(f"{p}-{n}", p, p, 0.0, f"{p}-{n}") for p in ids for n in (0, 1)],
        columns=["item_id", "prompt_id", "prompt", "reward", "image"],
    )
    pairs = pd.DataFrame(
        {
            "pair_id": ids,
            "prompt_id": ids,
            "first": [f"{p}-0" for p in ids],
            "second": [f"{p}-1" for p in ids],
            "choice": choices,
            "split": "test",
            "facet": facets,
            "probability": probabilities,
        }
    )
    return PreferenceData("made", items, pairs, DrawnImages(lambda name: None))


def test_ceiling_is_the_mean_probability_of_the_likelier_choice():
    data = make([0.9, 0.2, 0.5], [1.0, 0.0, 1.0], ["a", "a", "b"])
    table = ceilings(data.pairs).set_index("facet")
    assert table["ceiling"].to_dict() == pytest.approx({"a": 0.85, "b": 0.5})
    assert table["n_pairs"].to_dict() == {"a": 2, "b": 1}


def test_accuracy_counts_agreements_and_half_of_ties():
    data = make([0.9, 0.9, 0.9, 0.9], [1.0, 0.0, 1.0, 0.0], ["a", "a", "b", "b"])
    rewards = {"p0-0": 1.0, "p0-1": 0.0, "p1-0": 1.0, "p1-1": 0.0, "p2-0": 0.0, "p2-1": 0.0, "p3-0": 0.0, "p3-1": 2.0}
    table = accuracy(data, rewards).set_index("facet")
    assert table["accuracy"].to_dict() == {"a": 0.5, "b": 0.75}
    assert ((table["ci_low"] <= table["accuracy"]) & (table["accuracy"] <= table["ci_high"])).all()
    assert np.allclose(table["ceiling"], 0.9)


def test_every_item_needs_a_reward():
    with pytest.raises(ValueError, match="Some items have no reward"):
        accuracy(make([0.9], [1.0], ["a"]), {"p0-0": 1.0})
