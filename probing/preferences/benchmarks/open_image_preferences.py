"""Open image preferences (data-is-better-together/open-image-preferences-v1-binarized): small, open, two models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from probing.preferences.benchmarks.base import Benchmark
from probing.preferences.images import ImageSource, ParquetImages
from probing.preferences.tables.column_types import Kind
from probing.preferences.tables.parquet_file import files_of, list_rows, picture_hashes

_NEEDED: dict[str, Kind] = {"prompt": "prompt", "chosen": "picture", "rejected": "picture"}
_ALSO: dict[str, Kind] = {"chosen_model": "label", "rejected_model": "label", "category": "label", "evolution": "label"}
_SIDES = {"chosen": "first", "rejected": "second"}
_FOLDERS = ("data", "")


def read(root: Path, files: Mapping[str, str]) -> tuple[pd.DataFrame, ImageSource]:
    """Read all pairs; there is one published split, so prompts are split 80 to 20.

    Pictures have no names; an item's name is a hash of its picture's bytes. ``category`` and ``evolution`` are kept.

    Raises:
        UserError: A file is missing or damaged, lacks a column, or a record has no picture.
    """
    name = next(iter(files.values()))
    names = files_of(root, name, _FOLDERS)
    table = list_rows(root, names, _NEEDED, _ALSO)
    table["pair_id"] = name + table.index.astype(str)
    for column, side in _SIDES.items():
        table[side] = [hashed for file in names for hashed in picture_hashes(root, file, column)]
        table[f"image_{side}"] = table["file"] + "#" + table["row"].astype(str) + f"#{column}"
        if {"chosen_model", "rejected_model"} <= set(table):
            table[f"source_model_{side}"] = table[f"{column}_model"]
    table = table[table["first"] != table["second"]].assign(choice=1.0)
    return table.drop(columns=["file", "row", "chosen_model", "rejected_model"], errors="ignore"), ParquetImages(root)


BENCHMARKS = {
    "open-image-preferences": Benchmark(
        title="Open image preferences v1",
        hub="data-is-better-together/open-image-preferences-v1-binarized",
        patterns=dict.fromkeys(("train", "test"), ("data/train-*.parquet",)),
        read=read,
        files={"train": "train", "test": "train"},
        rule="micro-half",
        reported="",
        randomize_sides=True,
    )
}
