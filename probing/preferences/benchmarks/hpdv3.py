"""HPDv3 (MizzenAI/HPDv3): ``train.json`` or ``all.json``, and ``test.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from probing.preferences.benchmarks.base import Benchmark
from probing.preferences.images import ImageFolder, ImageSource, find_prefix
from probing.preferences.tables.json_file import label, many, number, optional, read_json, text

_NEEDED = {"prompt": text, "path1": text, "path2": text}
_VOTES = optional(many(number, "two counts of votes", least=2, most=2))
_ALSO = {"choice_dist": _VOTES, "confidence": number, "model1": label, "model2": label}


def read(root: Path, files: Mapping[str, str]) -> tuple[pd.DataFrame, ImageSource]:
    """Read the files of the given splits; ``path1`` is always the preferred picture.

    Pairs are not filtered; the authors train on ``confidence >= 0.95``. Numbers and lists may be strings, as they are
    in derivatives of the published files. Pairs have ``confidence``, ``annotators`` (their number), ``share_first``
    (the share of annotators who prefer the first), ``source_model_first`` and ``source_model_second``.

    Raises:
        UserError: A file is missing or cut off, or a record lacks a field or has an invalid value; the message names
            the record.
    """
    parts = []
    for split, file in files.items():
        table = read_json(root / file, _NEEDED, _ALSO, prefix=split)
        votes = table["choice_dist"] if "choice_dist" in table.column_names else None
        part = table.drop_columns(["choice_dist"] if votes is not None else []).to_pandas()
        part["pair_id"] = split + part.index.astype(str)
        part["split"] = split
        if votes is not None and pa.types.is_list(votes.type):
            chosen, rejected = (pc.list_element(votes, position).to_numpy() for position in (0, 1))
            part["annotators"] = chosen + rejected
            part["share_first"], part["share_second"] = chosen / part["annotators"], rejected / part["annotators"]
        parts.append(part)
    table = pd.concat(parts, ignore_index=True).rename(
        columns={"path1": "first", "path2": "second", "model1": "source_model_first", "model2": "source_model_second"}
    )
    table["choice"] = 1.0
    prefix = find_prefix(root, table["first"].head(1), ("", "images/"))
    return _below(table, prefix), ImageFolder(root)


def _below(table: pd.DataFrame, prefix: str) -> pd.DataFrame:
    if not prefix:
        return table
    return table.assign(image_first=prefix + table["first"], image_second=prefix + table["second"])


def _benchmark(train: str, variant: str = "") -> Benchmark:
    return Benchmark(
        title=f"HPDv3{variant}",
        hub="MizzenAI/HPDv3",
        patterns={"train": (train, "images*"), "test": ("test.json", "images*")},
        read=read,
        files={"train": train, "test": "test.json"},
        rule="micro-wrong",
        reported="HPSv3 76.9",
        randomize_sides=True,
    )


BENCHMARKS = {"hpdv3": _benchmark("train.json"), "hpdv3-all": _benchmark("all.json", ", all annotations")}
