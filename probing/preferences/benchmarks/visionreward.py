"""VisionRewardDB-Image (zai-org/VisionRewardDB-Image): pictures graded in 18 dimensions, each a facet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probing.errors import UserError, shown
from probing.preferences.benchmarks.base import Benchmark
from probing.preferences.benchmarks.rated_pictures import rated_comparisons, rated_rows
from probing.preferences.images import ImageSource, ParquetImages
from probing.preferences.tables.json_file import fields, many, number
from probing.preferences.tables.parquet_file import files_of

_FOLDERS = ("data", "")
_FLAGS = many(number, "a list of 0 and 1", least=0)
_GRADES = fields(number, "one grade a dimension")


def read(root: Path, files: Mapping[str, str]) -> tuple[pd.DataFrame, ImageSource]:
    """Compare the pictures of each prompt in every dimension of ``annotation``; a higher grade is better.

    A grade that is missing is in no comparison. ``meta_mask`` counts what was asked: with one entry a dimension, a
    dimension with 0 is not graded; with one entry a question, a picture none of whose questions counts is left out.
    There is one published split, so prompts are split 80 to 20.

    Raises:
        UserError: A file is missing or damaged, or a record has no prompt, picture or grades; with its place.
    """
    names = files_of(root, next(iter(files.values())), _FOLDERS)
    rows = rated_rows(root, names, {"prompt": "prompt", "annotation": "nested"}, {"meta_mask": "nested"})
    grades = [_grades(row) for row in rows.itertuples(index=False)]
    dimensions = list(dict.fromkeys(name for graded in grades for name in graded))
    facets = {name: f"grade:{name}" for name in dimensions}
    for name, column in facets.items():
        rows[column] = np.array([graded.get(name, np.nan) for graded in grades], dtype=float)
    return rated_comparisons(rows, facets), ParquetImages(root)


def _grades(row: Any) -> dict[str, float]:
    try:
        grades: dict[str, float | None] = _GRADES(row.annotation)
        mask = getattr(row, "meta_mask", None)
        flags = [] if mask is None else _FLAGS(mask)
    except ValueError as error:
        value = row.annotation if "grade" in str(error) else row.meta_mask
        raise UserError(f"The picture {row.image} has {shown(value)}, expected {error}; download it again.") from None
    if flags and len(flags) == len(grades):
        grades = {name: grade for (name, grade), flag in zip(grades.items(), flags, strict=True) if flag}
    elif flags and not any(flags):
        grades = {}
    return {name: grade for name, grade in grades.items() if grade is not None}


BENCHMARKS = {
    "visionreward": Benchmark(
        title="VisionRewardDB, images",
        hub="zai-org/VisionRewardDB-Image",
        patterns=dict.fromkeys(("train", "test"), ("data/train-*.parquet",)),
        read=read,
        files={"train": "train", "test": "train"},
        rule="micro-half",
        reported="",
        randomize_sides=True,
    )
}
