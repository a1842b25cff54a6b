"""Preference data as two tables: items, and pairs of items with a choice."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from PIL import Image

from probing.errors import UserError, shown
from probing.preferences.ids import repeated, rows_of
from probing.preferences.images.heat_maps import HeatMaps
from probing.preferences.images.sources import ImageSource
from probing.preferences.tables.condition_rows import rows_where

SPLITS = ("train", "validation", "test")
_ITEM_COLUMNS = ("item_id", "prompt_id", "prompt")
_PAIR_COLUMNS = ("pair_id", "prompt_id", "first", "second", "choice", "split", "facet")


@dataclass(frozen=True)
class PreferenceData:
    """Items and pairs of one data set; validated when built.

    Attributes:
        name: Name of the data set.
        items: One row an item: ``item_id`` (unique), ``prompt_id``, ``prompt`` (one text for each prompt id),
            ``image`` (its name in ``images``), and further columns, such as ``source_model``.
        pairs: One row a pair: ``pair_id`` (unique), ``prompt_id``, ``first`` and ``second`` (items of that
            prompt), ``choice`` (1 the first was chosen, 0 the second, 0.5 a tie), ``split``, ``facet``
            (``all`` if there is none), and further columns, such as ``list_id`` (of the ranking that the pair comes
            from), ``source_model_first``, ``source_model_second``, ``annotators``, ``confidence``.
        images: Opens the pictures.
        settings: Settings that the data were made or read with.

    Raises:
        UserError: The tables are inconsistent; the message names the record.
    """

    name: str
    items: pd.DataFrame
    pairs: pd.DataFrame
    images: ImageSource
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_table("items", self.items, (*_ITEM_COLUMNS, "image"), "item_id")
        _check_table("pairs", self.pairs, _PAIR_COLUMNS, "pair_id")
        pairs = self.pairs
        texts = self.items.drop_duplicates(["prompt_id", "prompt"])
        _refuse(
            texts, texts["prompt_id"].duplicated(), "has more than one text; one prompt_id is one prompt", "prompt_id"
        )
        # Comparing numbers is much faster than comparing texts.
        names = self.items["prompt_id"].drop_duplicates()
        prompt_of_item, prompt_of_pair = (rows_of(table["prompt_id"], names) for table in (self.items, pairs))
        for side, row in self._rows.items():
            _refuse(pairs, row < 0, f"has an unknown item as {side}; every item needs a row")
            differs = prompt_of_item[row] != prompt_of_pair
            _refuse(pairs, differs, f"has as {side} an item of another prompt; a pair has one prompt")
        _refuse(pairs, self._rows["first"] == self._rows["second"], "compares an item with itself; remove it")
        if not pd.api.types.is_numeric_dtype(pairs["choice"]):
            raise UserError(
                f"The choices of {self.name} are {pairs['choice'].dtype}, not numbers; 1 is first, 0 second."
            )
        _refuse(pairs, ~pairs["choice"].between(0, 1), "has a choice outside [0, 1]; 1 is first, 0 second, 0.5 a tie")
        _refuse(pairs, ~pairs["split"].isin(SPLITS), f"has an unknown split; splits are {', '.join(SPLITS)}")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the two tables, which identifies the data that a store was made from."""
        digest = hashlib.sha256()
        for table, columns in ((self.items, _ITEM_COLUMNS), (self.pairs, _PAIR_COLUMNS)):
            digest.update(pd.util.hash_pandas_object(table[list(columns)], index=False).to_numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def _rows(self) -> dict[str, np.ndarray]:
        """Row of each pair's first and second item among the items; −1 for an unknown item."""
        return {side: rows_of(self.pairs[side], self.items["item_id"]) for side in ("first", "second")}

    @cached_property
    def _image_of(self) -> dict[str, str]:
        return dict(zip(self.items["item_id"], self.items["image"], strict=True))

    def open_image(self, item_id: str) -> Image.Image:
        """Open an item's picture; may be called from several threads.

        Raises:
            UserError: It is missing or cannot be read; the message names the file and the item.
        """
        return self.images.open(self._image_of[item_id], item_id)

    def image_of(self, item_id: str) -> str:
        """Return the name of an item's picture in ``images``."""
        return self._image_of[item_id]

    def stamp_of(self, item_id: str) -> str | None:
        """Return a cheap identity of an item's picture, such as its file's size and times; None if there is none."""
        return self.images.stamp(self._image_of[item_id])

    def image_key(self, item_id: str) -> str | None:
        """Return what no other picture of any data has: where it is, its name and its stamp; None without a stamp."""
        stamp = self.stamp_of(item_id)
        return None if stamp is None else f"{self.images.location}\n{self._image_of[item_id]}\n{stamp}"

    @property
    def heat_map_kinds(self) -> tuple[str, ...]:
        """Kinds of people's heat maps that the data set has, such as ``misalignment`` and ``artifacts``."""
        return self.images.kinds if isinstance(self.images, HeatMaps) else ()

    def heat_map(self, item_id: str, kind: str) -> Float[np.ndarray, "row column"] | None:
        """Open a heat map of an item, higher where people saw more of a fault.

        Returns:
            None where people were not asked, which is not a map of zeros.

        Raises:
            UserError: The data set has no such maps, or the map is damaged.
        """
        kinds = self.heat_map_kinds
        if kind not in kinds or not isinstance(self.images, HeatMaps):
            have = f"it has {', '.join(kinds)}" if kinds else "rapidata, richhf and the testbed have some"
            raise UserError(f"{self.name} has no heat map {kind!r:.80}; {have}.")
        return self.images.heat_map(self._image_of[item_id], kind, item_id)

    def missing_images(self) -> pd.DataFrame:
        """List the items whose picture is missing, without opening any."""
        missing = self.images.missing(self.items["image"].unique())
        return self.items[self.items["image"].isin(set(missing))]

    def require_images(self) -> None:
        """Check that no picture is missing.

        Raises:
            UserError: Some are missing; the message has their number, and the first one with its item.
        """
        missing = self.missing_images()
        if len(missing):
            item = missing.iloc[0]
            raise UserError(
                f"{len(missing):,} of {len(self.items):,} pictures of {self.name} are missing, the first being "
                f"{item['image']!r} of item {item['item_id']!r}; check --data-root, or leave them out with "
                f"--skip-bad-images."
            )

    def without(self, item_ids: Collection[str]) -> PreferenceData:
        """Leave out items, and the pairs they are in.

        Raises:
            UserError: Nothing would be left.
        """
        left_out = self.items["item_id"].isin(set(item_ids)).to_numpy()
        keep = ~left_out[self._rows["first"]] & ~left_out[self._rows["second"]]
        if not keep.any():
            raise UserError(f"Without {len(item_ids):,} items {self.name} has no pairs left; check --data-root.")
        return self.keep(keep)

    def where(self, condition: str) -> PreferenceData:
        """Keep the pairs for which a condition on their columns holds, such as ``confidence >= 0.95``.

        Gaps fulfil neither a comparison nor its negation; :mod:`probing.preferences.tables.condition` has the grammar.

        Raises:
            UserError: The condition cannot be read, compares values of two types, or selects nothing.
        """
        holds = rows_where(self.pairs, condition)
        if not holds.any():
            raise UserError(f"No pair of {self.name} fulfils {shown(condition)}; give a weaker condition.")
        return self.keep(holds)

    def keep(self, mask: np.ndarray) -> PreferenceData:
        """Keep the pairs where ``mask`` (pair,) is true, and their items."""
        if mask.all():
            return self
        used = np.zeros(len(self.items), dtype=bool)
        for row in self._rows.values():
            used[row[mask]] = True
        return replace(
            self, items=self.items[used].reset_index(drop=True), pairs=self.pairs[mask].reset_index(drop=True)
        )

    def select(self, *, split: str | Collection[str] | None = None, limit: int | None = None) -> PreferenceData:
        """Keep one split or several, or at most ``limit`` items by whole prompt groups, spread evenly over the data.

        Raises:
            UserError: Nothing would be left.
        """
        splits = SPLITS if split is None else (split,) if isinstance(split, str) else tuple(split)
        if not (self.pairs["split"] == splits[0]).any() and split is not None:
            have = ", ".join(self.pairs["split"].unique())
            raise UserError(f"{self.name} has no pairs of split {splits[0]!r}; it has {have}.")
        data = self.keep(self.pairs["split"].isin(splits).to_numpy())
        if limit is None or limit >= len(data.items):
            return data
        if limit < 1:
            raise UserError(f"--limit must be at least 1, got {limit}.")
        items = data.items
        sizes = items.groupby("prompt_id", sort=False).size()
        # Spread evenly, so that each split keeps its share.
        order = np.argsort(np.arange(len(sizes)) * 0.6180339887498949 % 1.0, kind="stable")
        fits = sizes.to_numpy()[order].cumsum() <= limit
        if not fits.any():
            raise UserError(f"No prompt group fits --limit {limit}; the first has {sizes.iloc[order[0]]} items.")
        return data.keep(data.pairs["prompt_id"].isin(sizes.index[order[fits]]).to_numpy())


def _check_table(what: str, table: pd.DataFrame, columns: tuple[str, ...], key: str) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        raise UserError(f"The {what} lack the columns {', '.join(missing)}; they need {', '.join(columns)}.")
    if len(table) == 0:
        raise UserError(f"There are no {what}; check the file and the split.")
    _refuse(table, repeated(table[key]), f"is repeated; every {key} must be unique", key)
    for column in columns:
        _refuse(table, table[column].isna(), f"has no {column}; fill it in or remove the row", key)


def _refuse(table: pd.DataFrame, wrong: pd.Series | np.ndarray, problem: str, key: str = "pair_id") -> None:
    if wrong.any():
        raise UserError(f"{table.loc[wrong, key].iloc[0]!r} {problem} ({int(wrong.sum())} such rows).")
