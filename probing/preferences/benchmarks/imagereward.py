"""ImageReward: the test lists of its repository (THUDM/ImageReward), and ImageRewardDB, one row a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from probing.errors import UserError, shown
from probing.preferences.benchmarks.base import Benchmark
from probing.preferences.benchmarks.rankings import comparisons_by_rating, comparisons_of
from probing.preferences.comparisons import filled_text
from probing.preferences.images import ImageFolder, ImageSource, find_prefix
from probing.preferences.tables.column_types import Kind
from probing.preferences.tables.json_file import identifier, many, number, read_json, text, whole_number
from probing.preferences.tables.parquet_file import damage_reported, read_columns

RATINGS = {"rank": "overall", "image_text_alignment_rating": "alignment", "fidelity_rating": "fidelity"}
"""Columns of ImageRewardDB by which pictures are compared, and the facet of these comparisons."""
_COLUMNS: dict[str, Kind] = {
    "prompt_id": "id",
    "prompt": "prompt",
    "image_path": "path",
    **dict.fromkeys([*RATINGS, "overall_rating"], "number"),
}
_RANKS = range(1, 10)
_RATINGS = range(1, 8)


def _rank(value: object) -> int:
    rank = whole_number(value)
    if rank not in _RANKS:
        raise ValueError(f"ranks from {_RANKS[0]} to {_RANKS[-1]}")
    return rank


def read_test(root: Path, files: Mapping[str, str]) -> tuple[pd.DataFrame, ImageSource]:
    """Read ``test.json``: ``id, prompt, generations, ranking``, lower ranks are better, ties included.

    Several lists may have one prompt; ``list_id`` is the ``id`` of a list.

    Raises:
        UserError: The file is missing or cut off, or a list lacks a field, has not one valid rank a picture, or fewer
            than two pictures; the message has its id.
    """
    (split, file), *_ = files.items()
    table = (
        read_json(
            root / file,
            {
                "id": identifier,
                "prompt": text,
                "generations": many(text, "a list of paths", least=1),
                "ranking": many(_rank, f"a list of ranks from {_RANKS[0]} to {_RANKS[-1]}"),
            },
            record_id="id",
        )
        .to_pandas()
        .rename(columns={"id": "list_id"})
    )
    _refuse_repeated(table["list_id"], root / file)
    pairs = comparisons_of(table, images="generations", ranks="ranking", by_list=("prompt",)).assign(split=split)
    prefix = find_prefix(root, pairs["first"].head(1), ("", "test_images/", "data/test_images/", "images/"))
    return pairs.assign(image_first=prefix + pairs["first"], image_second=prefix + pairs["second"]), ImageFolder(root)


def read_db(root: Path, files: Mapping[str, str]) -> tuple[pd.DataFrame, ImageSource]:
    """Read ``metadata-SPLIT.parquet`` of ImageRewardDB: one row a picture, with its rank and three ratings.

    Each list becomes the comparisons of three facets: ``overall`` (by rank, lower is better), ``alignment`` and
    ``fidelity`` (by rating, higher is better), ties included. The overall ratings are ``overall_rating_first`` and
    ``…_second``.

    Raises:
        UserError: A file is missing or no table, lacks a column, or a row has an invalid rank or rating; the
            message names its picture.
    """
    parts = []
    for split, file in files.items():
        rows = _read_rows(root / file)
        # Ratings rise with quality, ranks fall.
        rows = rows.rename(columns={"image_path": "picture"}).assign(list_id=rows["prompt_id"], rank=-rows["rank"])
        facets = {facet: column for column, facet in RATINGS.items()}
        pairs = comparisons_by_rating(rows, facets, by_item=("overall_rating",))
        parts.append(pairs.assign(split=split, prompt_id=pairs["list_id"]))
    table = pd.concat(parts, ignore_index=True)
    for side in ("first", "second"):
        table[f"overall_rating_{side}"] = table[f"overall_rating_{side}"].astype(float)
    return table, ImageFolder(root)


def _read_rows(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"{path} is missing; --data-root is the folder that holds ImageRewardDB's {path.name}.")
    with damage_reported(path, "no Parquet table", "download it again"):
        rows = read_columns(path, _COLUMNS).to_pandas()
    if len(rows) == 0:
        raise UserError(f"{path} contains no pictures; download it again.")
    for column, allowed in {"rank": _RANKS, **dict.fromkeys([*list(RATINGS)[1:], "overall_rating"], _RATINGS)}.items():
        for image, value in zip(rows["image_path"], rows[column], strict=True):
            try:
                parsed = number(value)
            except ValueError:
                parsed = None
            if parsed is None or parsed not in allowed:
                raise UserError(
                    f"{image} of {path} has the {column} {shown(value)}, expected {allowed[0]} to {allowed[-1]}."
                )
    for column in ("prompt_id", "prompt", "image_path"):
        rows[column] = filled_text(path.name, rows[column])
    _refuse_two_prompts(rows, path)
    return rows.astype(dict.fromkeys([*RATINGS, "overall_rating"], float))


def _refuse_repeated(ids: pd.Series, path: Path) -> None:
    if ids.duplicated().any():
        raise UserError(f"{path} has the id {ids[ids.duplicated()].iloc[0]!r} twice; ids of lists must be unique.")


def _refuse_two_prompts(rows: pd.DataFrame, path: Path) -> None:
    different = rows[["prompt_id", "prompt"]].drop_duplicates()
    repeated = different["prompt_id"].duplicated()
    if repeated.any():
        prompt_id = different.loc[repeated, "prompt_id"].iloc[0]
        prompts = different.loc[different["prompt_id"] == prompt_id, "prompt"]
        first, second = map(shown, prompts[:2])
        raise UserError(
            f"The prompt_id {shown(prompt_id)} of {path} has two prompts, {first} and {second}; fetch it again."
        )


_SPLITS = ("train", "validation", "test")
BENCHMARKS = {
    "imagereward": Benchmark(
        title="ImageReward, test lists",
        hub=None,
        patterns={},
        read=read_test,
        files={"test": "test.json"},
        rule="micro-wrong",
        reported="ImageReward 65.1",
        randomize_sides=True,
        source="THUDM/ImageReward on GitHub, folder `data`",
    ),
    "imagereward-db": Benchmark(
        title="ImageRewardDB",
        hub="THUDM/ImageRewardDB",
        patterns={split: (f"metadata-{split}.parquet", f"images/{split}/*") for split in _SPLITS},
        read=read_db,
        files={split: f"metadata-{split}.parquet" for split in _SPLITS},
        rule="micro-wrong",
        reported="ImageReward 65.1",
        randomize_sides=True,
    ),
}
