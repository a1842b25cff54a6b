"""No selection uses a test prompt; a leak planted into each is caught by the same check."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from probing.analysis.engine import CellResults, Recipe, Sites, facets_of, measure_cells, measure_latents
from probing.analysis.reward_curve import compare
from probing.analysis.reward_curve import comparisons as comparisons_module
from probing.probes import ALPHAS, LogisticProbe, MLPProbe
from probing.probes import _logistic as logistic_module
from tests.fakes.fake_store import FakeStore, make_pairs

IMAGE, QUALITY = {"streams": ("image",), "sigmas": (0.6,)}, ["quality"]


class AlteredTest(FakeStore):
    """Test items have other features: huge, with one massive channel; training items keep theirs."""

    def __init__(self, pairs: pd.DataFrame) -> None:
        super().__init__(pairs)
        on_test = pairs.loc[pairs["split"] == "test", ["first", "second"]].to_numpy().ravel()
        self._test = np.isin(self.item_ids, on_test)

    def read(self, *site):
        features = super().read(*site).copy()
        features[self._test] = features[self._test][:, ::-1] * 100
        features[self._test, 4] *= 1e4
        return features


def flipped(pairs: pd.DataFrame) -> pd.DataFrame:
    changed = pairs.copy()
    on_test = changed["split"] == "test"
    changed.loc[on_test, "choice"] = 1 - changed.loc[on_test, "choice"]
    return changed


def changed_by_test(recipe: Recipe) -> list[str]:
    """Name what changes with the test items and test choices; nothing, without a leak."""
    pairs = make_pairs()
    clean, altered = (
        measure_cells(store(pairs), labelled, sites=Sites(**IMAGE, blocks=(1, 4)), facets=QUALITY, recipe=recipe).table
        for store, labelled in ((FakeStore, pairs), (AlteredTest, flipped(pairs)))
    )
    columns = ["alpha", "scaling", "cv_accuracy", "temperature"]
    return [name for name in columns if not clean[name].equals(altered[name])]


def leaked_test_data(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Differences and choices of the test pairs, for a leak."""
    pairs = make_pairs()
    (facet,) = facets_of(FakeStore(pairs), pairs, ["quality"])
    return facet.test.differences(features), facet.test.choices


def leaky_scaling(monkeypatch) -> None:
    """Scalings and massive channels are determined on test pairs too."""
    find, fit = logistic_module.find_scaling, Recipe.fit
    leaked: list[np.ndarray] = []

    def remember(self, features, pairs, **options):
        leaked[:] = [leaked_test_data(features)[0]]
        return fit(self, features, pairs, **options)

    def leak(name, X, weights):
        everything = np.concatenate([X, leaked[0]])
        return find(name, everything, np.full(len(everything), 1 / len(everything)))

    monkeypatch.setattr(Recipe, "fit", remember)
    monkeypatch.setattr(logistic_module, "find_scaling", leak)


def leaky_strength(monkeypatch) -> None:
    """The strength is selected on test pairs."""

    def fit(self, features, pairs, *, labels=None, swap=None):
        X, y = leaked_test_data(features)
        probes = [
            LogisticProbe(alphas=(alpha,)).fit(pairs.differences(features), pairs.choices, pairs.prompts)
            for alpha in ALPHAS
        ]
        return max(probes, key=lambda probe: np.mean((probe.decision_function(X) > 0) == (y > 0.5)))

    monkeypatch.setattr(Recipe, "fit", fit)


def leaky_stopping(monkeypatch) -> None:
    """A network stops early by its loss on test pairs."""
    (facet,) = facets_of(FakeStore(make_pairs()), make_pairs(), ["quality"])
    train, test = (np.stack([pairs.first, pairs.second], axis=1) for pairs in (facet.train, facet.test))

    def fit(self, features, pairs, *, labels=None, swap=None):
        probe = MLPProbe(seeds=1, epochs=5)
        monkeypatch.setattr(
            MLPProbe, "_split", lambda self, groups: (np.arange(len(train)), np.arange(len(train), len(groups)))
        )
        y = np.concatenate([facet.train.choices, facet.test.choices])
        probe.fit(np.concatenate([train, test]), y, items=self._items(features))
        probe.cv_margins_ = np.zeros(len(train))  # one a training pair
        return probe

    monkeypatch.setattr(Recipe, "fit", fit)


LEAKS: dict[str, tuple[Recipe, Callable]] = {
    "standardisation": (Recipe("logistic", "standard"), leaky_scaling),
    "masking": (Recipe("logistic", "mask-massive"), leaky_scaling),
    "whitening": (Recipe("logistic", "whiten"), leaky_scaling),
    "selection of scaling": (Recipe("logistic", "auto"), leaky_scaling),
    "strength": (Recipe("logistic"), leaky_strength),
    "early stopping": (Recipe("mlp"), leaky_stopping),
}


@pytest.mark.parametrize("selection", LEAKS)
def test_a_selection_never_uses_a_test_prompt(selection):
    assert changed_by_test(LEAKS[selection][0]) == []


@pytest.mark.parametrize("selection", LEAKS)
def test_a_planted_leak_is_caught(selection, monkeypatch):
    recipe, plant = LEAKS[selection]
    plant(monkeypatch)
    assert changed_by_test(recipe) != []


def selected_blocks() -> list[list[int]]:
    """Blocks that comparisons select, under the true test choices and under flipped ones."""
    blocks = []
    for pairs in (make_pairs(), flipped(make_pairs())):
        store = FakeStore(pairs)
        latents = measure_latents(store, pairs, facets=QUALITY)
        results = CellResults.join(measure_cells(store, pairs, sites=Sites(**IMAGE), facets=QUALITY), latents)
        blocks.append(compare(results)["block"].tolist())
    return blocks


def test_selecting_a_block_never_uses_a_test_prompt():
    true, flipped_choices = selected_blocks()
    assert true == flipped_choices


def test_a_planted_leak_into_selecting_a_block_is_caught(monkeypatch):
    monkeypatch.setattr(
        comparisons_module, "best_cell", lambda cells: cells.iloc[int(cells["value"].to_numpy().argmax())]
    )
    true, flipped_choices = selected_blocks()
    assert true != flipped_choices
