"""Shortcuts: guess the choice from the side, the picture's size, or its source model, without opening the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from probing.preferences.audit.scan import ScannedImages
from probing.preferences.data import PreferenceData
from probing.preferences.splits import stratified_folds
from probing.statistics import outcomes, share_interval

FOLDS = 5
LEAST_PAIRS = 50
"""Smallest number of untied pairs from which an accuracy is reported."""


@dataclass(frozen=True)
class Shortcut:
    """Accuracy of a shortcut with its 95% interval over prompts; ``table`` has the frequencies that it uses."""

    accuracy: float
    low: float
    high: float
    pairs: int
    prompts: int
    table: pd.DataFrame

    @property
    def works(self) -> bool:
        """Whether the whole interval is above chance."""
        return self.low > 0.5


def by_side(pairs: pd.DataFrame) -> Shortcut:
    """Measure how often the first picture is chosen, over untied pairs."""
    untied = pairs[pairs["choice"] != 0.5]
    chosen = (untied["choice"] > 0.5).to_numpy(dtype=float)
    table = untied.assign(first_chosen=chosen).groupby("split")["first_chosen"].agg(["mean", "size"]).reset_index()
    return _measured(chosen, untied["prompt_id"], table.rename(columns={"mean": "first_chosen", "size": "pairs"}))


def by_size(data: PreferenceData, scanned: ScannedImages, *, seed: int = 0) -> Shortcut:
    """Measure a logistic regression on the two pictures' width and height alone."""
    sizes = scanned.table.set_index("image")[["width", "height"]]
    image_of_item = data.items.set_index("item_id")["image"]
    sides = [sizes.reindex(data.pairs[side].map(image_of_item)).to_numpy(dtype=float) for side in ("first", "second")]
    usable = np.asarray((np.hstack(sides) > 0).all(axis=1))
    pairs = data.pairs[usable]
    logs = [np.log(side[usable]) for side in sides]
    # Area and shape, and their signs: a rule may use only which picture is the larger.
    stats = [np.column_stack([s.sum(axis=1), s[:, 0] - s[:, 1], np.abs(s[:, 0] - s[:, 1])]) for s in logs]
    features = np.column_stack([stats[0] - stats[1], np.sign(stats[0] - stats[1])])
    table = pd.DataFrame(
        {
            "size": ["the larger", "the wider"],
            "chosen": [_share(features[:, 3], pairs["choice"]), _share(features[:, 4], pairs["choice"])],
            "pairs": [int((features[:, 3] != 0).sum()), int((features[:, 4] != 0).sum())],
        }
    )
    return _guessed(sparse.csr_matrix(features), pairs, table, seed)


def by_source_model(pairs: pd.DataFrame, *, seed: int = 0) -> Shortcut | None:
    """Measure a logistic regression on the two source models' names alone; None if there are no such names."""
    sides = ("source_model_first", "source_model_second")
    if any(side not in pairs for side in sides):
        return None
    pairs = pairs[pairs[list(sides)].notna().all(axis=1)]
    models = [pairs[side].astype(str) for side in sides]
    names = pd.Index(pd.unique(pd.concat(models)))
    if len(names) < 2:
        return None
    first, second = (names.get_indexer(pd.Index(model)) for model in models)
    features = sparse.csr_matrix(
        (np.repeat([1.0, -1.0], len(pairs)), (np.tile(np.arange(len(pairs)), 2), np.concatenate([first, second]))),
        shape=(len(pairs), len(names)),
    )
    wins = pd.DataFrame(
        {"source_model": np.concatenate(models), "chosen": np.concatenate([pairs["choice"], 1 - pairs["choice"]])}
    )
    table = wins.groupby("source_model")["chosen"].agg(["mean", "size"]).reset_index()
    table = table.rename(columns={"mean": "chosen", "size": "pairs"}).sort_values("chosen", ascending=False)
    return _guessed(features, pairs, table, seed)


def _guessed(features: sparse.csr_matrix, pairs: pd.DataFrame, table: pd.DataFrame, seed: int) -> Shortcut:
    """Guess each choice by a logistic regression on differences that is fitted on other prompts."""
    untied = (pairs["choice"] != 0.5).to_numpy()
    features, pairs = features[untied], pairs[untied]
    chosen = (pairs["choice"] > 0.5).to_numpy()
    margins = np.zeros(len(pairs))
    if pairs["prompt_id"].nunique() >= FOLDS:
        fold_of = stratified_folds(pairs["prompt_id"], FOLDS, seed=seed)
        for fold in range(FOLDS):
            held_out = fold_of == fold
            # Each pair in both orders: scikit-learn requires two classes, and the order must not matter.
            train, labels = features[~held_out], chosen[~held_out]
            probe = LogisticRegression(fit_intercept=False, max_iter=1000)
            probe.fit(sparse.vstack([train, -train]), np.concatenate([labels, ~labels]))
            margins[held_out] = probe.decision_function(features[held_out])
    # Fitted coefficients are never exactly zero: a smaller margin is a tie.
    margins[np.abs(margins) < 1e-6] = 0.0
    return _measured(outcomes(margins, chosen.astype(float)), pairs["prompt_id"], table)


def _measured(right: np.ndarray, prompts: pd.Series, table: pd.DataFrame) -> Shortcut:
    count = prompts.nunique()
    if len(right) < LEAST_PAIRS or count < FOLDS:
        return Shortcut(float("nan"), float("nan"), float("nan"), len(right), count, table)
    interval = share_interval(right, prompts.to_numpy(dtype=str))
    return Shortcut(float(interval.estimate), float(interval.low), float(interval.high), len(right), count, table)


def _share(side: np.ndarray, choices: pd.Series) -> float:
    """Return how often the first is chosen where ``side`` is positive, or the second where it is negative."""
    differ = side != 0
    if not differ.any():
        return float("nan")
    choice = choices.to_numpy(dtype=float)[differ]
    return float(np.where(side[differ] > 0, choice, 1 - choice).mean())
