"""GenAI-Bench-1600 (BaiqiL/GenAI-Bench-1600): people's ratings of six models; another set than TIGER-Lab's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from probing.errors import UserError, shown
from probing.preferences.benchmarks.base import Benchmark
from probing.preferences.benchmarks.rankings import comparisons_by_rating
from probing.preferences.comparisons import filled_text
from probing.preferences.images import ImageSource, ParquetImages
from probing.preferences.tables.column_types import Kind
from probing.preferences.tables.json_file import fields, many, number
from probing.preferences.tables.parquet_file import column_names, files_of, list_rows

_FOLDERS = ("data", "")
_RATINGS = fields(many(number, "a list of ratings", least=1), "a list of ratings for each model")


def read(root: Path, files: Mapping[str, str]) -> tuple[pd.DataFrame, ImageSource]:
    """Compare the pictures of each prompt by the mean of people's ratings, 1 to 5; equal means are ties.

    Raises:
        UserError: A file is missing or damaged, or is TIGER-Lab's GenAI-Bench; a record has no prompt or ratings, or
            lacks the picture of a rated model.
    """
    (split, name), *_ = files.items()
    names = files_of(root, name, _FOLDERS)
    columns = column_names(root / names[0])
    if "vote_type" in columns:
        raise UserError(f"{root} holds TIGER-Lab's GenAI-Bench, which shares its name; give --data genai-bench for it.")
    rating = next((column for column in ("HumanRating", "HumanRatings") if column in columns), "HumanRating")
    needed: dict[str, Kind] = {"Prompt": "prompt", rating: "nested"}
    table = list_rows(root, names, needed, {"Index": "id"})
    table["Prompt"] = filled_text(name, table["Prompt"])
    rows = []
    for record in table.itertuples(index=False):
        place = f"{record.file}#{record.row}"
        try:
            rated = _RATINGS(getattr(record, rating))
        except ValueError as error:
            value = shown(getattr(record, rating))
            raise UserError(f"Record {place} has the {rating} {value}, expected {error}.") from None
        for model, ratings in rated.items():
            given = [value for value in ratings if value is not None]
            if not given:
                continue
            if model not in columns:
                raise UserError(f"Record {place} rates {shown(model)}, of which the file has no pictures.")
            rows.append((record.Prompt, f"{place}-{model}", f"{place}#{model}", model, float(np.mean(given))))
    pictures = pd.DataFrame(rows, columns=["prompt", "picture", "image", "source_model", "rating"])
    pairs = comparisons_by_rating(pictures, {"all": "rating"}, by_item=("image", "source_model"))
    return pairs.assign(split=split), ParquetImages(root)


BENCHMARKS = {
    "genai-bench-1600": Benchmark(
        title="GenAI-Bench-1600",
        hub="BaiqiL/GenAI-Bench-1600",
        patterns={"test": ("data/*.parquet",)},
        read=read,
        files={"test": "train"},
        rule="micro-half",
        reported="",
        randomize_sides=True,
    )
}
