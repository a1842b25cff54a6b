"""From chosen and rejected pictures to the two tables, by columns: no object per pair."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from probing.errors import UserError
from probing.preferences.data import PreferenceData
from probing.preferences.splits import check_no_prompt_crosses, normalise_prompt, split_by_prompt

_NEEDED = ("prompt", "chosen", "rejected")
TEXTS = (*_NEEDED, "prompt_id", "pair_id", "split", "facet", "tie")
"""Columns that are read as they are written, never as numbers."""
COMPUTED = ("first", "second", "choice")
"""Columns of pairs that are made here."""
_TRUTH = {"true": True, "yes": True, "1": True, "1.0": True, "false": False, "no": False, "0": False, "0.0": False}
_DROP_THE_SPLIT = "drop the split column to have the pairs split by prompt"


def from_chosen_and_rejected(
    name: str, table: pd.DataFrame, folder: Path, *, seed: int = 0, mend: str = _DROP_THE_SPLIT
) -> PreferenceData:
    """Build preference data from rows of ``prompt, chosen, rejected``.

    Items are unique by (prompt, path). Without ``prompt_id``, a prompt's id is a hash of its normalised words, so that
    an item keeps its id, and with it its noise, whichever rows or split are read. Spellings of one prompt become the
    first of them, so that both items of a pair have the same text. The chosen picture's place is drawn from (seed,
    pair), so that order tells nothing. Without ``split``, prompts are split 80 to 20.

    Args:
        name: Of the data set.
        table: ``prompt``, ``chosen`` and ``rejected`` (paths relative to ``folder``), and any of ``pair_id``,
            ``prompt_id``, ``split``, ``facet``, ``tie`` (true where neither was chosen); further columns are kept.
        folder: Where the pictures are.
        seed: Of places and of the split.
        mend: What the user can do where a prompt stands in two splits.

    Raises:
        UserError: A picture is missing, a prompt crosses splits, a table contradicts itself; with the record.
    """
    table = table.reset_index(drop=True)
    if len(table) == 0:
        raise UserError(f"There are no pairs in {name}; check the file.")
    for column in TEXTS:
        if column in table and column not in ("facet", "tie"):
            table[column] = _filled_text(name, table[column])
    words = table["prompt"].map({text: normalise_prompt(text) for text in table["prompt"].unique()})
    if "prompt_id" in table:
        _check_one_prompt_an_id(name, table["prompt_id"], words, table["prompt"])
    else:
        table["prompt_id"] = words.map({text: _id_of(text) for text in words.unique()})
    if "pair_id" not in table:
        table["pair_id"] = "pair" + table.index.astype(str)
    if "margin" in table:
        table["margin"] = numbers(table["margin"], table["pair_id"])
    table["prompt"] = table["prompt_id"].map(table.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"])
    _check_pictures(name, table, folder)
    if "split" not in table:
        table["split"] = split_by_prompt(table["prompt"], seed=seed)
    check_no_prompt_crosses(table["prompt"], table["split"], mend=mend)
    table["facet"] = table["facet"].fillna("all").astype(str).replace("", "all") if "facet" in table else "all"
    hashes = pd.util.hash_pandas_object(table["pair_id"], index=False, hash_key=f"{seed:016d}"[-16:])
    chosen_first = (hashes.to_numpy() >> np.uint64(17)) & np.uint64(1) == 1
    ids = {side: table["prompt_id"] + "/" + table[side] for side in ("chosen", "rejected")}
    tied = _truths(name, table["tie"]) if "tie" in table else pd.Series(False, index=table.index)
    pairs = pd.DataFrame(
        {
            "pair_id": table["pair_id"],
            "prompt_id": table["prompt_id"],
            "first": ids["chosen"].where(chosen_first, ids["rejected"]),
            "second": ids["rejected"].where(chosen_first, ids["chosen"]),
            "choice": np.where(tied, 0.5, chosen_first.astype(float)),
            "split": table["split"],
            "facet": table["facet"],
            **{column: table[column] for column in table if column not in (*TEXTS, *COMPUTED)},
        }
    )
    items = pd.concat(
        [
            pd.DataFrame(
                {"item_id": ids[s], "prompt_id": table["prompt_id"], "prompt": table["prompt"], "image": table[s]}
            )
            for s in ("chosen", "rejected")
        ]
    ).drop_duplicates("item_id", ignore_index=True)
    path_of = dict(zip(items["item_id"], items["image"], strict=True))
    return PreferenceData(
        name=name,
        items=items,
        pairs=pairs,
        open_image=lambda item_id: open_picture(folder / path_of[item_id], item_id),
        settings={"seed": seed},
    )


def open_picture(path: Path, record: str) -> Image.Image:
    """Open and decode a picture.

    Raises:
        UserError: It is missing, empty, cut off, too large, or no picture; with the file and the record.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise UserError(f"{path} of record {record!r} is missing; check --data-root.") from None
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
        EOFError,
        ValueError,
        struct.error,
    ) as error:
        raise UserError(f"{path} of record {record!r} cannot be read ({error}); replace the file.") from error


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


def _filled_text(name: str, column: pd.Series) -> pd.Series:
    """Bring a column to text; a gap is an error, for a text made of it would pass for an id."""
    empty = column.isna() | (column.astype(str).str.strip() == "")
    if empty.any():
        raise UserError(
            f"Record {np.flatnonzero(empty)[0]} of {name} has no {column.name}; fill it in or remove the record."
        )
    return column.astype(str)


def _id_of(words: str) -> str:
    return "prompt-" + hashlib.blake2b(words.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _check_one_prompt_an_id(name: str, prompt_id: pd.Series, words: pd.Series, prompt: pd.Series) -> None:
    different = pd.DataFrame({"id": prompt_id, "words": words, "prompt": prompt}).drop_duplicates(["id", "words"])
    again = different[different["id"].duplicated()]
    if len(again):
        record = again.iloc[0]
        before = different.loc[different["id"] == record["id"], "prompt"].iloc[0]
        raise UserError(
            f"The prompt_id {record['id']!r} of {name} stands for two prompts, {before!r} and {record['prompt']!r} "
            f"(record {again.index[0]}); give each prompt its own id, or drop the column."
        )


def _truths(name: str, column: pd.Series) -> pd.Series:
    """Read true, yes, 1, and their contraries, of any type; a gap is no tie."""
    text = column.astype(object).where(column.notna(), "no").astype(str).str.strip().str.casefold().replace("", "no")
    unknown = ~text.isin(list(_TRUTH))
    if unknown.any():
        record = np.flatnonzero(unknown)[0]
        raise UserError(f"Record {record} of {name} has the tie {column.iloc[record]!r}; write true or false.")
    return text.map(_TRUTH).astype(bool)


def _check_pictures(name: str, table: pd.DataFrame, folder: Path) -> None:
    """Look for every picture once, before anything is computed."""
    for side in ("chosen", "rejected"):
        for path in table[side].unique():
            if not os.path.isfile(folder / path):
                record = table.loc[table[side] == path, "pair_id"].iloc[0]
                raise UserError(
                    f"{folder / path}, the {side} picture of {record!r} in {name}, is missing; "
                    f"paths are relative to {folder}."
                )
