"""From comparisons of pictures to the two tables of preference data, by columns: no object per pair."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from probing.errors import UserError
from probing.preferences.data import PreferenceData
from probing.preferences.image_sources import ImageSource
from probing.preferences.splits import normalise_prompt, split_by_prompt

_NEEDED = ("prompt", "first", "second", "choice")
_TEXTS = ("prompt", "first", "second", "prompt_id", "pair_id", "split")
_TRUTH = {"true": True, "yes": True, "1": True, "1.0": True, "false": False, "no": False, "0": False, "0.0": False}


def from_comparisons(
    name: str,
    table: pd.DataFrame,
    images: ImageSource,
    *,
    draw_places: bool,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> PreferenceData:
    """Build preference data from rows of ``prompt, first, second, choice``.

    Items are unique by (prompt, picture). Without ``prompt_id``, a prompt's id is a hash of its normalised words, so
    that an item keeps its id, and with it its noise, whichever rows or split are read. Spellings of one prompt become
    the first of them, so that both items of a pair have the same text, and the same words under several ids become
    one prompt, under the first of its ids: nothing may cut a prompt. Without ``split``, prompts are split 80 to 20.

    Args:
        name: Of the data set.
        table: ``prompt``, ``first`` and ``second`` (what names a picture in the data set), ``choice`` (1, 0, 0.5 a
            tie), and any of ``pair_id``, ``prompt_id``, ``list_id`` (of the ranking that the pair comes from),
            ``split``, ``facet``, and ``image_first`` and ``image_second`` (what ``images`` takes, where it is
            something else). Other columns are kept; those that end in ``_first`` and ``_second`` speak of the two
            sides, and ``source_model_…`` goes to the items too. The table is used up: of a million long prompts
            there is no second copy.
        images: Opens the pictures.
        draw_places: Whether to draw which picture comes first, from (seed, pair): else order would tell the choice.
        seed: Of places and of the split.
        settings: What the data were read with.

    Raises:
        UserError: A gap, an id that stands for two prompts, or tables that contradict themselves; with the record.
    """
    table.index = pd.RangeIndex(len(table))
    if len(table) == 0:
        raise UserError(f"There are no pairs in {name}; check the file.")
    for column in _TEXTS:
        if column in table:
            table[column] = filled_text(name, table[column])
    _give_prompt_ids(name, table)
    if "pair_id" not in table:
        table["pair_id"] = "pair" + table.index.astype(str)
    if "split" not in table:
        table["split"] = split_by_prompt(table["prompt_id"], seed=seed)
    table["facet"] = table["facet"].fillna("all").astype(str).replace("", "all") if "facet" in table else "all"
    if draw_places:
        _swap_sides(table, ~_coins(table["pair_id"], seed))
    items = _items_of(table)
    pairs = table[["pair_id", "prompt_id"]].copy()
    for side in ("first", "second"):
        pairs[side] = table["prompt_id"] + "/" + table[side]
    pairs["choice"] = table["choice"].astype(float)
    for column in table.columns.difference([*_NEEDED, *pairs, "image_first", "image_second"], sort=False):
        pairs[column] = table[column]
    return PreferenceData(
        name=name,
        items=items,
        pairs=pairs,
        images=images,
        settings={"seed": seed, **(settings or {})},
    )


def choice_of_chosen(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Name ``chosen`` the first and ``rejected`` the second; a row whose ``tie`` is true is a tie."""
    ends = {"chosen": "first", "rejected": "second"}
    renamed = {
        column: column[: -len(word)] + side
        for column in map(str, table)
        for word, side in ends.items()
        if column == word or column.endswith(f"_{word}")
    }
    tied = truths(name, table["tie"]) if "tie" in table else pd.Series(False, index=table.index)
    return table.drop(columns="tie", errors="ignore").rename(columns=renamed).assign(choice=np.where(tied, 0.5, 1.0))


def filled_text(name: str, column: pd.Series) -> pd.Series:
    """Bring a column to text; a gap is an error, for a text made of it would pass for an id."""
    said = column.astype(str)
    empty = column.isna() | (said.str.strip() == "")
    if empty.any():
        raise UserError(
            f"Record {np.flatnonzero(empty)[0]} of {name} has no {column.name}; fill it in or remove the record."
        )
    return said


def numbers(column: pd.Series, records: pd.Series) -> pd.Series:
    """Read numbers, also from strings; gaps stay gaps.

    Raises:
        UserError: Something else stands there; with the record.
    """
    values = column.mask(column.isin(["null", "None", ""]))
    read = pd.to_numeric(values, errors="coerce")
    wrong = read.isna() & values.notna()
    if wrong.any():
        raise UserError(
            f"Record {records[wrong].iloc[0]!r} has the {column.name} {column[wrong].iloc[0]!r}, which is no number."
        )
    return read


def truths(name: str, column: pd.Series) -> pd.Series:
    """Read true, yes, 1, and their contraries, of any type; a gap is no.

    Raises:
        UserError: Something else stands there; with the record.
    """
    said = column.astype(object).where(column.notna(), "no").astype(str).str.strip().str.casefold().replace("", "no")
    unknown = ~said.isin(list(_TRUTH))
    if unknown.any():
        record = np.flatnonzero(unknown)[0]
        raise UserError(
            f"Record {record} of {name} has the {column.name} {column.iloc[record]!r}; write true or false."
        )
    return said.map(_TRUTH).astype(bool)


def _give_prompt_ids(name: str, table: pd.DataFrame) -> None:
    """Give each prompt one id and one spelling."""
    code, different = pd.factorize(table["prompt"])
    normal, words = pd.factorize(pd.Series([normalise_prompt(text) for text in different], dtype=str))
    # Of each row: which prompt it is, whatever its spelling.
    prompt = normal[code]
    if "prompt_id" in table:
        _check_one_prompt_an_id(name, table, prompt)
        ids = table["prompt_id"].take(np.unique(prompt, return_index=True)[1])
    else:
        ids = pd.Series([_id_of(text) for text in words], dtype=str)
    table["prompt_id"] = ids.take(prompt).array
    # A prompt's text can be long, and stands in many rows.
    spellings = different[np.unique(normal, return_index=True)[1]]
    table["prompt"] = pd.Categorical.from_codes(prompt, spellings)


def _check_one_prompt_an_id(name: str, table: pd.DataFrame, prompt: np.ndarray) -> None:
    different = pd.DataFrame({"id": table["prompt_id"], "prompt": prompt}).drop_duplicates()
    again = different[different["id"].duplicated()]
    if len(again):
        record = again.index[0]
        named = again["id"].iloc[0]
        before = different.index[different["id"] == named][0]
        raise UserError(
            f"The prompt_id {named!r} of {name} stands for two prompts, {table['prompt'][before]!r} and "
            f"{table['prompt'][record]!r} (record {record}); give each prompt its own id, or drop the column."
        )


def _coins(pair_ids: pd.Series, seed: int) -> np.ndarray:
    """One fair coin a pair, the same whichever rows are read."""
    hashes = pd.util.hash_pandas_object(pair_ids, index=False, hash_key=f"{seed:016d}"[-16:], categorize=False)
    return (hashes.to_numpy() >> np.uint64(17)) & np.uint64(1) == 1


def _swap_sides(table: pd.DataFrame, swap: np.ndarray) -> None:
    """Exchange the two sides where ``swap`` says so, with all that is said of them."""
    sides = [("first", "second")]
    sides += [
        (column, f"{column[:-6]}_second")
        for column in map(str, table)
        if column.endswith("_first") and f"{column[:-6]}_second" in table
    ]
    for first, second in sides:
        left, right = table[first], table[second]
        table[first], table[second] = left.mask(swap, right), right.mask(swap, left)
    table["choice"] = np.where(swap, 1 - table["choice"], table["choice"])


def _items_of(table: pd.DataFrame) -> pd.DataFrame:
    """List each different item once, in the order of the pairs, so that a prompt's pictures stand together."""
    count = len(table)
    name, names = pd.factorize(pd.concat([table["first"], table["second"]], ignore_index=True))
    item = np.tile(table["prompt"].cat.codes.to_numpy(np.int64), 2) * len(names) + name
    in_order = np.arange(2 * count).reshape(2, count).T.ravel()
    at = in_order[np.sort(np.unique(item[in_order], return_index=True)[1])]

    def of_sides(first: str, second: str) -> pd.Series:
        return pd.concat([table[first], table[second]], ignore_index=True).take(at).reset_index(drop=True)

    items = table[["prompt_id", "prompt"]].take(at % count).reset_index(drop=True)
    named = pd.Series(names.take(name[at]))
    items.insert(0, "item_id", items["prompt_id"] + "/" + named)
    items["image"] = of_sides("image_first", "image_second") if "image_first" in table else named
    if "source_model_first" in table:
        items["source_model"] = of_sides("source_model_first", "source_model_second").astype("category")
    return items


def _id_of(words: str) -> str:
    return "prompt-" + hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
