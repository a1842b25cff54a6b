"""No test prompt is seen by any choice; and a leak, planted into each, is caught by the same check."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from probing.analysis import Recipe, compare, fit_cells, fit_latents
from probing.analysis import comparisons as comparisons_module
from probing.analysis.pairs import facets_of
from probing.analysis.results import CellResults
from probing.probes import ALPHAS, LogisticProbe, MLPProbe
from probing.probes import logistic as logistic_module
from tests.fakes.fake_store import FakeStore, make_pairs

ASKED = {"streams": ["image"], "sigmas": [0.6], "facets": ["quality"], "progress": False}


class Spoilt(FakeStore):
    """Test items hold other features: huge, one channel dwarfing the rest; training items hold their own."""

    def __init__(self, pairs: pd.DataFrame) -> None:
        super().__init__(pairs)
        on_test = pairs.loc[pairs["split"] == "test", ["first", "second"]].to_numpy().ravel()
        self._test = np.isin(self.item_ids, on_test)

    def read(self, *place):
        features = super().read(*place).copy()
        features[self._test] = features[self._test][:, ::-1] * 100
        features[self._test, 4] *= 1e4
        return features


def flipped(pairs: pd.DataFrame) -> pd.DataFrame:
    other = pairs.copy()
    on_test = other["split"] == "test"
    other.loc[on_test, "choice"] = 1 - other.loc[on_test, "choice"]
    return other


def moved(recipe: Recipe) -> list[str]:
    """What was chosen or fitted otherwise once test items and test choices were others; nothing, if nothing leaks."""
    pairs = make_pairs()
    clean, spoilt = (
        measure_cells(store(pairs), told, recipe=recipe, **ASKED, sites=Sites(blocks=(1, 4))).table
        for store, told in ((FakeStore, pairs), (Spoilt, flipped(pairs)))
    )
    kept = ["alpha", "scaling", "cv_accuracy", "temperature"]
    return [name for name in kept if not clean[name].equals(spoilt[name])]


def side_of_test(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Differences and choices of the test pairs, as a leak would get hold of them."""
    pairs = make_pairs()
    (facet,) = facets_of(FakeStore(pairs), pairs, ["quality"])
    return facet.test.differences(features), facet.test.choices


def leaky_scaling(monkeypatch) -> None:
    """Scales, and what is massive, are found on test pairs too."""
    find, fit = logistic_module.find_scaling, Recipe.fit
    there: list[np.ndarray] = []

    def remember(self, features, side, *rest):
        there[:] = [side_of_test(features)[0]]
        return fit(self, features, side, *rest)

    def leak(name, X, weights):
        everything = np.concatenate([X, there[0]])
        return find(name, everything, np.full(len(everything), 1 / len(everything)))

    monkeypatch.setattr(Recipe, "fit", remember)
    monkeypatch.setattr(logistic_module, "find_scaling", leak)


def leaky_strength(monkeypatch) -> None:
    """The strength is the one that does best on test pairs."""

    def fit(self, features, side, kept=None, choices=None):
        X, y = side_of_test(features)
        probes = [
            LogisticProbe(alphas=(alpha,)).fit(side.differences(features), side.choices, side.prompts)
            for alpha in ALPHAS
        ]
        return max(probes, key=lambda probe: np.mean((probe.decision_function(X) > 0) == (y > 0.5)))

    monkeypatch.setattr(Recipe, "fit", fit)


def leaky_stopping(monkeypatch) -> None:
    """A network stops, and keeps its weights, by its loss on test pairs."""
    (facet,) = facets_of(FakeStore(make_pairs()), make_pairs(), ["quality"])
    train, test = (np.stack([side.first, side.second], axis=1) for side in (facet.train, facet.test))

    def fit(self, features, side, kept=None, choices=None):
        probe = MLPProbe(seeds=1, epochs=5)
        monkeypatch.setattr(
            MLPProbe, "_split", lambda self, groups: (np.arange(len(train)), np.arange(len(train), len(groups)))
        )
        y = np.concatenate([facet.train.choices, facet.test.choices])
        probe.fit(np.concatenate([train, test]), y, items=self._items(features))
        probe.validation_margins_ = np.zeros(len(train))  # as many as the caller knows of
        return probe

    monkeypatch.setattr(Recipe, "fit", fit)


LEAKS: dict[str, tuple[Recipe, Callable]] = {
    "standardisation": (Recipe("logistic", "standard"), leaky_scaling),
    "masking": (Recipe("logistic", "mask-massive"), leaky_scaling),
    "whitening": (Recipe("logistic", "whiten"), leaky_scaling),
    "choice of scaling": (Recipe("logistic", "auto"), leaky_scaling),
    "strength": (Recipe("logistic"), leaky_strength),
    "early stopping": (Recipe("mlp"), leaky_stopping),
}


@pytest.mark.parametrize("choice", LEAKS)
def test_a_choice_never_sees_a_test_prompt(choice):
    assert moved(LEAKS[choice][0]) == []


@pytest.mark.parametrize("choice", LEAKS)
def test_a_planted_leak_is_caught(choice, monkeypatch):
    recipe, plant = LEAKS[choice]
    plant(monkeypatch)
    assert moved(recipe) != []


def chosen_blocks() -> list[list[int]]:
    """Blocks that comparisons choose, under the true test choices and under flipped ones."""
    found = []
    for pairs in (make_pairs(), flipped(make_pairs())):
        store = FakeStore(pairs)
        latents = measure_latents(store, pairs, facets=["quality"])
        results = CellResults.join(measure_cells(store, pairs, **ASKED), latents)
        found.append(compare(results, resamples=100)["block"].tolist())
    return found


def test_the_choice_of_a_block_never_sees_a_test_prompt():
    true, other = chosen_blocks()
    assert true == other


def test_a_planted_leak_into_the_choice_of_a_block_is_caught(monkeypatch):
    monkeypatch.setattr(comparisons_module, "best", lambda cells: cells.iloc[int(cells["value"].to_numpy().argmax())])
    true, other = chosen_blocks()
    assert true != other
