"""Multimodal RewardBench 2, text-to-image (rl-research/multimodal-rewardbench-2): 1,000 pairs that people agree on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from probing.errors import UserError, shown
from probing.preferences.benchmarks.base import Benchmark
from probing.preferences.comparisons import filled_text
from probing.preferences.images import ImageSource, ParquetImages
from probing.preferences.tables.column_types import Kind
from probing.preferences.tables.parquet_file import files_of, list_rows

_NEEDED: dict[str, Kind] = {
    "pair_id": "id",
    "prompt_text": "prompt",
    "response_a_images": "picture",
    "response_b_images": "picture",
    "chosen": "label",
}
_ALSO: dict[str, Kind] = {
    "prompt_source": "label",
    "response_a_model": "label",
    "response_b_model": "label",
    "human_annotations": "label",
    "prompt_metadata": "label",
}
_FOLDERS = ("t2i", "data/t2i", "data", "")


def read(root: Path, files: Mapping[str, str]) -> tuple[pd.DataFrame, ImageSource]:
    """Read the pairs on their published sides, A first.

    Items are named by pair and side, since pictures have no names. ``prompt_source``, ``human_annotations`` and
    ``prompt_metadata`` are kept as published.

    Raises:
        UserError: A file is missing or damaged, lacks a column, or a choice is neither A nor B; with the pair's id.
    """
    parts = []
    for split, name in files.items():
        parts.append(list_rows(root, files_of(root, name, _FOLDERS), _NEEDED, _ALSO).assign(split=split))
    table = pd.concat(parts, ignore_index=True)
    chosen = filled_text("mmrb2", table["chosen"], "label").str.strip().str.upper()
    wrong = ~chosen.isin(["A", "B"])
    if wrong.any():
        row = table[wrong].iloc[0]
        raise UserError(f"Pair {shown(row['pair_id'])} has the choice {shown(row['chosen'])}, expected A or B.")
    table["choice"] = (chosen == "A").astype(float)
    for side, letter in (("first", "a"), ("second", "b")):
        table[side] = table["pair_id"].astype(str) + f"-{letter}"
        table[f"image_{side}"] = table["file"] + "#" + table["row"].astype(str) + f"#response_{letter}_images"
        if {"response_a_model", "response_b_model"} <= set(table):
            table[f"source_model_{side}"] = table[f"response_{letter}_model"]
    table = table.rename(columns={"prompt_text": "prompt"})
    used = ["chosen", "file", "row", "response_a_model", "response_b_model"]
    return table.drop(columns=used, errors="ignore"), ParquetImages(root)


BENCHMARKS = {
    "mmrb2": Benchmark(
        title="Multimodal RewardBench 2, text-to-image",
        hub="rl-research/multimodal-rewardbench-2",
        patterns={"test": ("t2i/test-*.parquet",)},
        read=read,
        files={"test": "test"},
        rule="two-way",
        reported="HPSv3 60.2, GPT-5 70.5",
    )
}
