"""From chosen and rejected pictures to the two tables, by columns: no object per pair."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from probing.errors import UserError
from probing.preferences.data import PreferenceData
from probing.preferences.splits import check_no_prompt_crosses, normalise_prompt, split_by_prompt


def from_chosen_and_rejected(name: str, table: pd.DataFrame, folder: Path, *, seed: int = 0) -> PreferenceData:
    """Build preference data from rows of ``prompt, chosen, rejected``.

    Items are unique by (prompt, path). The chosen picture's place is drawn from (seed, pair), so that order tells
    nothing. Without ``split``, prompts are split 80 to 20.

    Args:
        name: Of the data set.
        table: ``prompt``, ``chosen`` and ``rejected`` (paths relative to ``folder``), and any of ``pair_id``,
            ``prompt_id``, ``split``, ``facet``, ``tie`` (true where neither was chosen); further columns are kept.
        folder: Where the pictures are.
        seed: Of places and of the split.

    Raises:
        UserError: A picture is missing, a prompt crosses splits, a table contradicts itself; with the record.
    """
    table = table.reset_index(drop=True)
    for column in ("prompt", "chosen", "rejected"):
        empty = table[column].isna() | (table[column].astype(str).str.strip() == "")
        if empty.any():
            raise UserError(
                f"Record {np.flatnonzero(empty)[0]} of {name} has no {column}; fill it in or remove the record."
            )
    table = table.astype({"prompt": str, "chosen": str, "rejected": str})
    if "prompt_id" not in table:
        table["prompt_id"] = "prompt" + pd.Series(
            pd.factorize(table["prompt"].map({t: normalise_prompt(t) for t in table["prompt"].unique()}))[0].astype(str)
        )
    table["prompt_id"] = table["prompt_id"].astype(str)
    if "pair_id" not in table:
        table["pair_id"] = "pair" + table.index.astype(str)
    table["pair_id"] = table["pair_id"].astype(str)
    _check_pictures(name, table, folder)
    if "split" not in table:
        table["split"] = split_by_prompt(table["prompt"], seed=seed)
    check_no_prompt_crosses(table["prompt"], table["split"])
    table["facet"] = table["facet"].fillna("all").astype(str) if "facet" in table else "all"
    hashes = pd.util.hash_pandas_object(table["pair_id"], index=False, hash_key=f"{seed:016d}"[-16:])
    chosen_first = (hashes.to_numpy() >> np.uint64(17)) & np.uint64(1) == 1
    ids = {side: table["prompt_id"] + "/" + table[side] for side in ("chosen", "rejected")}
    tied = table["tie"].astype(bool) if "tie" in table else pd.Series(False, index=table.index)
    first = ids["chosen"].where(chosen_first, ids["rejected"])
    second = ids["rejected"].where(chosen_first, ids["chosen"])
    known = {"pair_id", "prompt_id", "prompt", "chosen", "rejected", "tie", "split", "facet"}
    pairs = pd.DataFrame(
        {
            "pair_id": table["pair_id"],
            "prompt_id": table["prompt_id"],
            "first": first,
            "second": second,
            "choice": np.where(tied, 0.5, chosen_first.astype(float)),
            "split": table["split"],
            "facet": table["facet"],
            **{column: table[column] for column in table if column not in known},
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
        UserError: It is missing, empty, cut off, or no picture; with the file and the record.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise UserError(f"{path} of record {record!r} is missing; check --data-root.") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"{path} of record {record!r} cannot be read ({error}); replace the file.") from error


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
