"""What data sets of rated pictures share: rows of Parquet files, compared within a prompt by each rating."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from probing.preferences.benchmarks.rankings import comparisons_by_rating
from probing.preferences.comparisons import filled_text
from probing.preferences.tables.column_types import Kind, numbers
from probing.preferences.tables.parquet_file import list_rows, picture_hashes


def rated_rows(
    root: Path,
    files: Sequence[str],
    needed: Mapping[str, Kind],
    also: Mapping[str, Kind] | None = None,
    *,
    ratings: Sequence[str] = (),
) -> pd.DataFrame:
    """Read one row a picture, with ``picture`` (a hash of its bytes) and ``image`` (its place in the files).

    The same picture twice under one prompt is read once.

    Args:
        root: Folder that ``files`` are relative to.
        files: The files.
        needed: Required columns, ``prompt`` among them.
        also: Optional columns.
        ratings: Those of the columns that become finite numbers, or gaps.

    Raises:
        UserError: A file is damaged, lacks a column, or a record has no prompt, no picture or a rating that is no
            number.
    """
    rows = list_rows(root, files, {**needed, "image": "picture"}, also)
    rows["prompt"] = filled_text(files[0], rows["prompt"])
    rows["picture"] = [hashed for file in files for hashed in picture_hashes(root, file, "image")]
    rows["image"] = rows["file"] + "#" + rows["row"].astype(str) + "#image"
    for name in ratings:
        if name in rows:
            rows[name] = numbers(rows[name], rows["image"])
    return rows.drop_duplicates(["prompt", "picture"], ignore_index=True)


def rated_comparisons(rows: pd.DataFrame, facets: Mapping[str, str]) -> pd.DataFrame:
    """Compare pictures as :func:`comparisons_by_rating` does, and name where each is."""
    present = {facet: column for facet, column in facets.items() if column in rows and rows[column].notna().any()}
    return comparisons_by_rating(rows, present, by_item=("image",))
