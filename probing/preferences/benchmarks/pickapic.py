"""Pick-a-Pic v1 and v2: Parquet files with the pictures inside.

The authors' own data sets (yuvalkirstain/pickapic_v1, _v2) have been off the hub since April 2025. The copy of v1 has
new ids of pictures, none of the original, so that its items are not those of a store made from the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from probing.errors import UserError, shown
from probing.preferences.benchmarks.base import Benchmark
from probing.preferences.comparisons import filled_text, truths
from probing.preferences.images import ImageSource, ParquetImages
from probing.preferences.tables.column_types import Kind, numbers
from probing.preferences.tables.parquet_file import files_of, list_rows

_NEEDED: dict[str, Kind] = {
    "caption": "prompt",
    "label_0": "number",
    "label_1": "number",
    "image_0_uid": "id",
    "image_1_uid": "id",
    "jpg_0": "picture",
    "jpg_1": "picture",
}
_ALSO: dict[str, Kind] = {
    "has_label": "truth",
    "are_different": "truth",
    "model_0": "label",
    "model_1": "label",
    "ranking_id": "id",
    "user_id": "id",
    "created_at": "plain",
    "num_example_per_prompt": "number",
}
_FOLDERS = ("data", "")


def read(root: Path, files: Mapping[str, str]) -> tuple[pd.DataFrame, ImageSource]:
    """Read the given splits; the sides are those that the annotators saw.

    Comparisons without a label (``has_label`` false), or of a picture with itself, are left out. Item ids are the
    images' uids, pair ids are ``ranking_id``. Pairs have ``source_model_first``, ``source_model_second`` and the other
    published columns.

    Args:
        root: Folder of the Parquet files, or the parent of their folder ``data``.
        files: The beginning of each split's file names, such as ``validation_unique``.

    Raises:
        UserError: A file is missing, damaged or lacks a column, or a label is invalid; the message names the record.
    """
    tables = []
    for split, name in files.items():
        table = list_rows(root, files_of(root, name, _FOLDERS), _NEEDED, _ALSO).assign(split=split)
        if "has_label" in table:
            table = table[truths(name, table["has_label"].fillna(True))]
        table = table[table["image_0_uid"] != table["image_1_uid"]].reset_index(drop=True)
        table["pair_id"] = (
            filled_text(name, table["ranking_id"]) if "ranking_id" in table else name + table.index.astype(str)
        )
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    table["pair_id"] = _distinct(table["pair_id"])
    _check_labels(table)
    table["choice"] = table["label_0"].astype(float)
    for side, number in (("first", 0), ("second", 1)):
        table[side] = table[f"image_{number}_uid"]
        table[f"image_{side}"] = table["file"] + "#" + table["row"].astype(str) + f"#jpg_{number}"
        if f"model_{number}" in table:
            table[f"source_model_{side}"] = table[f"model_{number}"]
    if "user_id" in table:
        table["annotator"] = table["user_id"]
    used = ["has_label", "user_id", "ranking_id", "file", "row"]
    used += [f"{field}_{number}" for field in ("label", "model") for number in (0, 1)]
    table = table.rename(columns={"caption": "prompt"}).drop(
        columns=[*used, "image_0_uid", "image_1_uid"], errors="ignore"
    )
    return table, ParquetImages(root)


def _check_labels(table: pd.DataFrame) -> None:
    for label in ("label_0", "label_1"):
        table[label] = numbers(table[label], table["pair_id"])
    good = table["label_0"].isin([0.0, 0.5, 1.0]) & (table["label_0"] + table["label_1"] == 1.0)
    if not good.all():
        row = table[~good].iloc[0]
        raise UserError(
            f"Record {shown(row['pair_id'])} of {row['file']} has the labels {row['label_0']} and "
            f"{row['label_1']}, "
            f"expected 1 and 0, 0 and 1, or one half each."
        )


def _distinct(ids: pd.Series) -> pd.Series:
    """Number the repetitions of an id; its first use stays unchanged."""
    repeated = ids.groupby(ids).cumcount()
    return ids.where(repeated == 0, ids + "." + repeated.astype(str))


_HUB = {1: "pickapic-anonymous/pickapic_v1", 2: "liuhuohuo2/pick-a-pic-v2"}
_MIRRORS: dict[int, tuple[str, ...]] = {1: (), 2: ("sayakpaul/pickapic_v2_webdataset (tar shards)",)}


def _benchmark(version: int, suffix: str) -> Benchmark:
    files = {"train": "train", "validation": f"validation{suffix}", "test": f"test{suffix}"}
    return Benchmark(
        title=f"Pick-a-Pic v{version}" + ("" if suffix else ", all test comparisons"),
        hub=_HUB[version],
        mirrors=_MIRRORS[version],
        gone=f"yuvalkirstain/pickapic_v{version}, since April 2025",
        patterns={split: (f"data/{name}-*.parquet",) for split, name in files.items()},
        read=read,
        files=files,
        rule="tuned-tie",
        reported="PickScore 70.5" if (version, suffix) == (1, "_unique") else "",
    )


BENCHMARKS = {
    f"pickapic-v{version}{ending}": _benchmark(version, suffix)
    for ending, suffix in (("", "_unique"), ("-full", ""))
    for version in (1, 2)
}
