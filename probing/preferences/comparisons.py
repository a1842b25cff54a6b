"""Build the two tables of preference data from comparisons of pictures, by columns: no object per pair."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from probing.errors import UserError, shown
from probing.preferences.data import PreferenceData
from probing.preferences.images.sources import ImageSource
from probing.preferences.splits import normalise_prompt, split_by_prompt
from probing.preferences.tables.column_types import EXPECTED, Kind, check_sides, numbers

_NEEDED = ("prompt", "first", "second", "choice")
_KINDS: dict[str, Kind] = {
    "prompt": "prompt",
    "first": "id",
    "second": "id",
    "image_first": "path",
    "image_second": "path",
    "prompt_id": "id",
    "pair_id": "id",
    "split": "label",
}
"""Columns that become text without gaps."""
_TRUTH = {"true": True, "yes": True, "1": True, "1.0": True, "false": False, "no": False, "0": False, "0.0": False}


def from_comparisons(
    name: str,
    table: pd.DataFrame,
    images: ImageSource,
    *,
    randomize_sides: bool,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> PreferenceData:
    """Build preference data from rows of ``prompt, first, second, choice``.

    Items are unique by (prompt, picture). Without ``prompt_id``, a prompt's id is a hash of its normalised words, so
    that an item keeps its id, and with it its noise, whichever rows or split are read. All spellings of a prompt are
    replaced by the first, so that both items of a pair have the same text. The same words under several ids become
    one prompt under the first id, so that no split cuts it. Without ``split``, prompts are split 80 to 20.

    Args:
        name: Name of the data set.
        table: ``prompt``, ``first`` and ``second`` (names of pictures in the data set), ``choice`` (1, 0, 0.5 a
            tie), and any of ``pair_id``, ``prompt_id``, ``list_id`` (of the ranking that the pair comes from),
            ``split``, ``facet``, and ``image_first`` and ``image_second`` (their names in ``images``, if
            different). Other columns are kept; those that end in ``_first`` and ``_second`` describe the two sides,
            must come in twos, and are exchanged with them; ``source_model_…`` is copied to the items. The table is
            changed in place, to hold a million long prompts in memory once.
        images: Opens the pictures.
        randomize_sides: Whether to randomise which picture is first, from (seed, pair): the published order may reveal
            the choice.
        seed: Seed of the sides and of the split.
        settings: Settings that the data were read with.

    Raises:
        UserError: A gap, a value of another type, an infinite number, a side's column without its partner, an id of
            two prompts, or inconsistent tables; the message names the record.
    """
    sides = check_sides(name, table)
    table.index = pd.RangeIndex(len(table))
    if len(table) == 0:
        raise UserError(f"There are no pairs in {name}; check the file.")
    for column, kind in _KINDS.items():
        if column in table:
            table[column] = filled_text(name, table[column], kind)
    _give_prompt_ids(name, table)
    if "list_id" in table:
        table["list_id"] = _texts(name, table["list_id"], "id").replace("", np.nan)
    if "pair_id" not in table:
        table["pair_id"] = "pair" + table.index.astype(str)
    if "split" not in table:
        table["split"] = split_by_prompt(table["prompt_id"], seed=seed)
    table["facet"] = (
        _texts(name, table["facet"], "label").fillna("all").replace("", "all") if "facet" in table else "all"
    )
    for column in table.columns.difference([*_NEEDED, *_KINDS, "list_id", "facet"]):
        if pd.api.types.is_float_dtype(table[column].dtype):
            table[column] = numbers(table[column], table["pair_id"])
    _refuse_gaps_of_lists(name, table)
    if randomize_sides:
        _swap_sides(table, ~_coins(table["pair_id"], seed), sides)
    items = _items_of(table)
    pairs = table[["pair_id", "prompt_id"]].copy()
    for side in ("first", "second"):
        pairs[side] = table["prompt_id"] + "/" + table[side]
    pairs["choice"] = table["choice"].astype(float)
    for column in table.columns.difference([*_NEEDED, *pairs, "image_first", "image_second"], sort=False):
        pairs[column] = table[column]
    return PreferenceData(
        name=name, items=items, pairs=pairs, images=images, settings={"seed": seed, **(settings or {})}
    )


def choice_of_chosen(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Rename ``chosen`` to ``first`` and ``rejected`` to ``second``; a row whose ``tie`` is true becomes a tie."""
    ends = {"chosen": "first", "rejected": "second"}
    renamed = {
        column: column[: -len(word)] + side
        for column in map(str, table)
        for word, side in ends.items()
        if column == word or column.endswith(f"_{word}")
    }
    tied = truths(name, table["tie"]) if "tie" in table else pd.Series(False, index=table.index)
    return table.drop(columns="tie", errors="ignore").rename(columns=renamed).assign(choice=np.where(tied, 0.5, 1.0))


def filled_text(name: str, column: pd.Series, kind: Kind = "id") -> pd.Series:
    """Check that a column holds text without gaps; whole numbers too where it holds ids.

    Raises:
        UserError: A value of another type, or a gap; the message names the record.
    """
    texts = _texts(name, column, kind)
    empty = texts.isna() | (texts.str.strip() == "")
    if empty.any():
        raise UserError(
            f"Record {np.flatnonzero(empty)[0]} of {name} has no {column.name}; fill it in or remove the record."
        )
    return texts


def _refuse_gaps_of_lists(name: str, table: pd.DataFrame) -> None:
    """Refuse a split in which only some pairs have a list: those without would be scored as one list."""
    if "list_id" not in table:
        return
    gap = table["list_id"].isna()
    some = gap & ~gap.groupby(table["split"]).transform("all")
    if some.any():
        raise UserError(
            f"Record {np.flatnonzero(some)[0]} of {name} has no list_id, and others of its split have one; fill it in."
        )


def _texts(name: str, column: pd.Series, kind: Kind) -> pd.Series:
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    whole_numbers = kind == "id" and pd.api.types.is_integer_dtype(column.dtype)
    if not (column.dtype == object or whole_numbers or pd.api.types.is_string_dtype(column.dtype)):
        if column.isna().all():
            return pd.Series(pd.NA, index=column.index, name=column.name, dtype="str")
        raise UserError(f"The column {column.name} of {name} is of type {column.dtype}; {EXPECTED[kind]}.")
    if column.dtype == object:
        for record, value in enumerate(column):
            whole = kind == "id" and isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not (isinstance(value, str) or whole or value is None or value is pd.NA or value != value):
                raise UserError(
                    f"Record {record} of {name} has the {column.name} {shown(value)} of type {type(value).__name__}; "
                    f"{EXPECTED[kind]}."
                )
    return column.astype("str")


def truths(name: str, column: pd.Series) -> pd.Series:
    """Read true, yes, 1 and false, no, 0 of any type; a gap is false.

    Raises:
        UserError: A value is something else; the message names the record.
    """
    texts = column.astype(object).where(column.notna(), "no").astype(str).str.strip().str.casefold().replace("", "no")
    unknown = ~texts.isin(list(_TRUTH))
    if unknown.any():
        record = np.flatnonzero(unknown)[0]
        raise UserError(
            f"Record {record} of {name} has the {column.name} {shown(column.iloc[record])}; write true or false."
        )
    return texts.map(_TRUTH).astype(bool)


def _give_prompt_ids(name: str, table: pd.DataFrame) -> None:
    """Give each prompt one id and one spelling."""
    code, different = pd.factorize(table["prompt"])
    normal, words = pd.factorize(pd.Series([normalise_prompt(text) for text in different], dtype=str))
    # Number of each row's prompt, whatever its spelling.
    prompt = normal[code]
    if "prompt_id" in table:
        _check_one_prompt_an_id(name, table, prompt)
        ids = table["prompt_id"].take(np.unique(prompt, return_index=True)[1])
    else:
        ids = pd.Series([_id_of(text) for text in words], dtype=str)
    table["prompt_id"] = ids.take(prompt).array
    # A prompt's text can be long, and many rows have it.
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
            f"The prompt_id {shown(named)} of {name} has two prompts, {shown(table['prompt'][before])} and "
            f"{shown(table['prompt'][record])} (record {record}); give each prompt its own id, or drop the column."
        )


def _coins(pair_ids: pd.Series, seed: int) -> np.ndarray:
    """Return one fair coin for each pair, the same whichever rows are read."""
    hashes = pd.util.hash_pandas_object(pair_ids, index=False, hash_key=f"{seed:016d}"[-16:], categorize=False)
    return (hashes.to_numpy() >> np.uint64(17)) & np.uint64(1) == 1


def _swap_sides(table: pd.DataFrame, swap: np.ndarray, sides: Sequence[tuple[str, str]]) -> None:
    """Exchange the two sides where ``swap`` is true, with every column that describes them."""
    rows = np.arange(len(table))
    taken = np.where(swap, rows + len(table), rows)
    for first, second in sides:
        # The two have one type, or one has gaps only: joined, they have one type.
        both = pd.concat([_plain(table[first]), _plain(table[second])], ignore_index=True)
        table[first] = both.take(taken).array
        table[second] = both.take((taken + len(table)) % (2 * len(table))).array
    table["choice"] = np.where(swap, 1 - table["choice"], table["choice"])


def _plain(column: pd.Series) -> pd.Series:
    return column.astype(column.cat.categories.dtype) if isinstance(column.dtype, pd.CategoricalDtype) else column


def _items_of(table: pd.DataFrame) -> pd.DataFrame:
    """List each different item once, in the order of the pairs, so that a prompt's pictures are adjacent."""
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
