"""GenAI-Bench (TIGER-Lab/GenAI-Bench), image generation: votes of an arena; ``vote`` separates both-bad from ties."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from probing.errors import UserError, shown
from probing.preferences.benchmarks.base import Benchmark
from probing.preferences.images import ImageSource, ParquetImages
from probing.preferences.tables.column_types import Kind
from probing.preferences.tables.parquet_file import column_names, files_of, list_rows, picture_hashes

CHOICES = {"leftvote": 1.0, "rightvote": 0.0, "tievote": 0.5, "bothbad_vote": 0.5}
_NEEDED: dict[str, Kind] = {
    "prompt": "prompt",
    "left_model": "label",
    "right_model": "label",
    "vote_type": "label",
    "left_image": "picture",
    "right_image": "picture",
}
_SIDES = {"left": "first", "right": "second"}
_FOLDERS = ("image_generation", "data/image_generation", "")


def read(root: Path, files: Mapping[str, str]) -> tuple[pd.DataFrame, ImageSource]:
    """Read the given splits; the sides are those that the annotators saw.

    Pairs have ``vote`` as published, ``source_model_first`` and ``source_model_second``. Pictures have no published
    names; their name is a hash of their bytes, so a picture in two comparisons of a prompt is one item.

    Args:
        root: Folder of the Parquet files, or the parent of their folder ``image_generation``.
        files: The beginning of each split's file names: ``test`` or ``test_v1``.

    Raises:
        UserError: A file is missing or no Parquet file, lacks a column, or holds an unknown vote or no picture; with
            the record.
    """
    parts = []
    for split, name in files.items():
        names = files_of(root, name, _FOLDERS)
        if {"Prompt", "HumanRating"} <= set(column_names(root / names[0])):
            raise UserError(
                f"{root} holds GenAI-Bench-1600, which shares its name; give --data genai-bench-1600 for it."
            )
        table = list_rows(root, names, _NEEDED).assign(split=split)
        table["pair_id"] = name + table.index.astype(str)
        for side, position in _SIDES.items():
            table[position] = [hashed for file in names for hashed in picture_hashes(root, file, f"{side}_image")]
            table[f"image_{position}"] = table["file"] + "#" + table["row"].astype(str) + f"#{side}_image"
            table[f"source_model_{position}"] = table[f"{side}_model"]
        parts.append(table)
    table = pd.concat(parts, ignore_index=True)
    unknown = ~table["vote_type"].isin(list(CHOICES))
    if unknown.any():
        row = table[unknown].iloc[0]
        raise UserError(
            f"Record {row['pair_id']!r} has the vote_type {shown(row['vote_type'])}, expected {', '.join(CHOICES)}."
        )
    table["choice"] = table["vote_type"].map(CHOICES).astype(float)
    table = table[table["first"] != table["second"]].rename(columns={"vote_type": "vote"})
    return table.drop(columns=["file", "row", "left_model", "right_model"]), ParquetImages(root)


def _benchmark(name: str, variant: str = "", reported: str = "") -> Benchmark:
    return Benchmark(
        title=f"GenAI-Bench, image generation{variant}",
        hub="TIGER-Lab/GenAI-Bench",
        patterns={"test": (f"image_generation/{name}-*.parquet",)},
        read=read,
        files={"test": name},
        rule="four-way",
        reported=reported,
    )


BENCHMARKS = {
    "genai-bench": _benchmark("test"),
    "genai-bench-v1": _benchmark("test_v1", ", v1", "Gemini 1.5 Pro 44.7, chance 25.4"),
}
