"""Preference data as two tables: items, and pairs of items with a choice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from probing.errors import UserError

SPLITS = ("train", "validation", "test")
_ITEM_COLUMNS = ("item_id", "prompt_id", "prompt")
_PAIR_COLUMNS = ("pair_id", "prompt_id", "first", "second", "choice", "split", "facet")


@dataclass(frozen=True)
class PreferenceData:
    """Items and pairs of one data set; validated when built.

    Attributes:
        name: Of the data set.
        items: One row an item: ``item_id`` (unique), ``prompt_id``, ``prompt`` (one text for each prompt id), and
            what else is known.
        pairs: One row a pair: ``pair_id`` (unique), ``prompt_id``, ``first`` and ``second`` (items of that
            prompt), ``choice`` (1 the first was chosen, 0 the second, 0.5 a tie), ``split``, ``facet``
            (``all`` where there is none), and what else is known.
        open_image: Opens an item's picture, given its id.
        settings: What the data were made or read with.

    Raises:
        UserError: The tables contradict themselves; the message names the record.
    """

    name: str
    items: pd.DataFrame
    pairs: pd.DataFrame
    open_image: Callable[[str], Image.Image]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_table("items", self.items, _ITEM_COLUMNS, "item_id")
        _check_table("pairs", self.pairs, _PAIR_COLUMNS, "pair_id")
        pairs = self.pairs
        texts = self.items.drop_duplicates(["prompt_id", "prompt"])
        _refuse(
            texts, texts["prompt_id"].duplicated(), "has more than one text; one prompt_id is one prompt", "prompt_id"
        )
        prompt_of = self.items.set_index("item_id")["prompt_id"]
        for side in ("first", "second"):
            found = pairs[side].map(prompt_of)
            _refuse(pairs, found.isna(), f"has an unknown item as {side}; every item needs a row")
            _refuse(
                pairs, found != pairs["prompt_id"], f"has as {side} an item of another prompt; a pair has one prompt"
            )
        _refuse(pairs, pairs["first"] == pairs["second"], "compares an item with itself; remove it")
        if not pd.api.types.is_numeric_dtype(pairs["choice"]):
            raise UserError(
                f"The choices of {self.name} are {pairs['choice'].dtype}, not numbers; 1 is first, 0 second."
            )
        _refuse(pairs, ~pairs["choice"].between(0, 1), "has a choice outside [0, 1]; 1 is first, 0 second, 0.5 a tie")
        _refuse(pairs, ~pairs["split"].isin(SPLITS), f"has an unknown split; known are {', '.join(SPLITS)}")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the two tables: tells whether a store was made from these data."""
        digest = hashlib.sha256()
        for table, columns in ((self.items, _ITEM_COLUMNS), (self.pairs, _PAIR_COLUMNS)):
            digest.update(pd.util.hash_pandas_object(table[list(columns)], index=False).to_numpy().tobytes())
        return digest.hexdigest()

    def select(self, *, split: str | None = None, limit: int | None = None) -> PreferenceData:
        """Keep one split, or at most ``limit`` items by whole prompt groups, spread evenly over the data.

        Raises:
            UserError: Nothing would be left.
        """
        pairs = self.pairs if split is None else self.pairs[self.pairs["split"] == split]
        if len(pairs) == 0:
            have = ", ".join(self.pairs["split"].unique())
            raise UserError(f"{self.name} has no pairs of split {split!r}; it has {have}.")
        items = self.items[self.items["item_id"].isin({*pairs["first"], *pairs["second"]})]
        if limit is not None and limit < len(items):
            if limit < 1:
                raise UserError(f"--limit is a number of items, at least 1, got {limit}.")
            sizes = items.groupby("prompt_id", sort=False).size()
            # Evenly spread, so that each split keeps its share.
            order = np.argsort(np.arange(len(sizes)) * 0.6180339887498949 % 1.0, kind="stable")
            fits = sizes.to_numpy()[order].cumsum() <= limit
            if not fits.any():
                raise UserError(f"No prompt group fits --limit {limit}; the first has {sizes.iloc[order[0]]} items.")
            items = items[items["prompt_id"].isin(sizes.index[order[fits]])]
            pairs = pairs[pairs["prompt_id"].isin(items["prompt_id"])]
        return replace(self, items=items.reset_index(drop=True), pairs=pairs.reset_index(drop=True))


def _check_table(what: str, table: pd.DataFrame, columns: tuple[str, ...], key: str) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        raise UserError(f"The {what} lack the columns {', '.join(missing)}; they need {', '.join(columns)}.")
    if len(table) == 0:
        raise UserError(f"There are no {what}; check the file and the split.")
    _refuse(table, table[key].duplicated(), f"comes twice; every {key} is unique", key)
    for column in columns:
        _refuse(table, table[column].isna(), f"has no {column}; fill it in or remove the row", key)


def _refuse(table: pd.DataFrame, wrong: pd.Series, said: str, key: str = "pair_id") -> None:
    if wrong.any():
        raise UserError(f"{table.loc[wrong, key].iloc[0]!r} {said} ({int(wrong.sum())} such rows).")
