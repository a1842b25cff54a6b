"""The pairs of each facet as row numbers of a store, after a check of the split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from probing.analysis.engine.sites import choose
from probing.analysis.engine.source import FeatureSource
from probing.errors import UserError
from probing.preferences.pair_counts import LEAST_TEST_PROMPTS, LEAST_TRAINING_PROMPTS

ALL_FACETS = "all"
"""The facet of every pair together."""
_COLUMNS = ("pair_id", "prompt_id", "first", "second", "choice", "split", "facet")


@dataclass(frozen=True)
class PairSet:
    """The training or test pairs of one facet.

    Attributes:
        table: The pairs, with all their columns.
        first: Row in the store of each pair's first item.
        second: Row in the store of each pair's second item.
    """

    table: pd.DataFrame
    first: Int[np.ndarray, " pair"]
    second: Int[np.ndarray, " pair"]

    @property
    def rows(self) -> Int[np.ndarray, "pair 2"]:
        """Rows in the store of each pair's first and second item."""
        return np.stack([self.first, self.second], axis=1)

    @property
    def prompts(self) -> np.ndarray:
        return self.table["prompt_id"].to_numpy()

    @property
    def choices(self) -> Float[np.ndarray, " pair"]:
        return self.table["choice"].to_numpy(dtype=np.float64)

    @property
    def ceiling(self) -> float:
        """Expected accuracy of the true reward on the untied pairs; NaN without the annotators' probabilities."""
        if "probability" not in self.table:
            return float("nan")
        probability = self.table.loc[self.choices != 0.5, "probability"].to_numpy(dtype=np.float64)
        return float(np.maximum(probability, 1 - probability).mean())

    @property
    def untied(self) -> Bool[np.ndarray, " pair"]:
        return self.choices != 0.5

    def differences(self, features: Float[np.ndarray, "item ..."]) -> Float[np.ndarray, "pair channel"]:
        """Subtract the second item's features from the first's, in float64, tokens side by side."""
        flat = features.reshape(len(features), -1)
        return flat[self.first].astype(np.float64) - flat[self.second]


@dataclass(frozen=True)
class Facet:
    """Training and test pairs of one facet."""

    name: str
    train: PairSet
    test: PairSet

    @property
    def training_rows(self) -> Int[np.ndarray, " training"]:
        """Rows in the store of the training items: all that an unsupervised map may be fitted to."""
        return np.unique(np.concatenate([self.train.first, self.train.second]))


def facets_of(store: FeatureSource, pairs: pd.DataFrame, facets: Sequence[str] | None = None) -> list[Facet]:
    """Find each facet's pairs in a store; only the splits ``train`` and ``test`` are used.

    Pairs of several facets also give the facet ``all``, every pair together: one probe trained on all, as a reward
    model is.

    Raises:
        UserError: A column is missing, a prompt is in both splits, an item is not in the store or not written yet, a
            choice is not 0, 0.5 or 1, or a facet has too few prompts.
    """
    missing = [column for column in _COLUMNS if column not in pairs.columns]
    if missing:
        raise UserError(f"The table of pairs has no {', '.join(missing)}; it needs {', '.join(_COLUMNS)}.")
    pairs = pairs[pairs["split"].isin(["train", "test"])]
    _refuse_leaks(pairs)
    if pairs["pair_id"].duplicated().any():
        repeated = pairs.loc[pairs["pair_id"].duplicated(), "pair_id"].iloc[0]
        raise UserError(f"Pair {repeated} is in the table more than once; give each pair its own pair_id.")
    if not pairs["choice"].isin([0.0, 0.5, 1.0]).all():
        raise UserError("Some choices are not 1 (first), 0 (second) or 0.5 (tie); round the annotators' shares before.")
    labels = sorted(pairs["facet"].unique())
    if len(labels) > 1 and ALL_FACETS not in labels:
        labels = [ALL_FACETS, *labels]
    names = choose("facet", facets, labels)
    selected = {name: pairs[in_facet(pairs, name)].assign(facet=name) for name in names}
    rows = _rows(store, pd.concat(selected.values()))
    return [_facet(name, of_facet, rows) for name, of_facet in selected.items()]


def in_facet(pairs: pd.DataFrame, name: str) -> pd.Series:
    """Return the mask of a facet's pairs; ``all`` is every pair, unless pairs have that label themselves."""
    own = pairs["facet"] == name
    return own if name != ALL_FACETS or own.any() else pairs["facet"].notna()


def _facet(name: str, pairs: pd.DataFrame, rows: pd.Series) -> Facet:
    sets = {}
    for split, least in (("train", LEAST_TRAINING_PROMPTS), ("test", LEAST_TEST_PROMPTS)):
        table = pairs[pairs["split"] == split].reset_index(drop=True)
        untied = table.loc[table["choice"] != 0.5, "prompt_id"].nunique()
        if untied < least:
            raise UserError(
                f"Facet {name} has untied {split} pairs of {untied} prompts, expected at least {least}; "
                f"extract more items, or leave it out with --facets."
            )
        first, second = (rows.loc[table[side]].to_numpy() for side in ("first", "second"))
        sets[split] = PairSet(table, first, second)
    return Facet(name, sets["train"], sets["test"])


def _refuse_leaks(pairs: pd.DataFrame) -> None:
    splits = pairs.groupby("prompt_id")["split"].nunique()
    both = splits.index[splits > 1]
    if len(both):
        raise UserError(
            f"{len(both)} prompts are in train and test (one is {both[0]}), expected none; split by prompt."
        )


def _rows(store: FeatureSource, pairs: pd.DataFrame) -> pd.Series:
    """Return the row of each item of the store; refuse pairs whose items are missing or not written."""
    rows = pd.Series(np.arange(len(store.item_ids)), index=pd.Index(store.item_ids))
    items = pd.unique(pairs[["first", "second"]].to_numpy().ravel())
    positions = rows.index.get_indexer(pd.Index(items))
    in_store = positions >= 0
    if not in_store.all():
        raise UserError(
            f"{int((~in_store).sum())} of {len(items)} items of the pairs are not in the store "
            f"(one is {items[~in_store][0]}); extract the same data that the pairs come from."
        )
    written = np.asarray(store.written)[positions]
    if not written.all():
        raise UserError(
            f"{int((~written).sum())} of {len(items)} items are not written yet; "
            f"give the same probing.extract command again; it continues."
        )
    return rows
