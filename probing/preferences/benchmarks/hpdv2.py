"""HPDv2 (ymhao/HPDv2): ``train.json`` of pairs, ``test.json`` of ranked lists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from probing.errors import UserError
from probing.preferences.benchmarks.base import Benchmark
from probing.preferences.benchmarks.rankings import comparisons_of
from probing.preferences.images import ImageFolder, ImageSource, find_prefix
from probing.preferences.tables.json_file import Reading, many, read_json, text, whole_number

_TWO_PATHS = many(text, "two paths", least=2, most=2)


def _rank(value: object) -> int:
    rank = whole_number(value)
    if rank < 0:
        raise ValueError("a rank of 0 or more")
    return rank


def _annotation(value: object) -> list[int]:
    if not isinstance(value, dict) or "rank" not in value:
        raise ValueError("a rank of one annotator")
    return _RANKS(value["rank"])


_RANKS = many(_rank, "a list of ranks, whole numbers", least=1)
_PATHS = many(text, "a list of paths", least=1)
_PREFERENCE = many(whole_number, "[1, 0] or [0, 1]", least=2, most=2)


def read(root: Path, files: Mapping[str, str]) -> tuple[pd.DataFrame, ImageSource]:
    """Read the files of the given splits.

    Test pairs are made from the published ranks, ties included; ``annotators`` (their number) and ``share_first`` (the
    share of annotators who prefer the first, a tie counting one half) are made from ``raw_annotations``; ``list_id``
    names the list.

    Raises:
        UserError: A file is missing or cut off, a record lacks a field or has an invalid value, or the pictures and
            ranks of a list do not match; the message names the record.
    """
    read_of = {"train": _read_train, "test": _read_test}
    table = pd.concat([read_of[split](root / file) for split, file in files.items()], ignore_index=True)
    for split in table["split"].unique():
        in_split = table["split"] == split
        prefix = find_prefix(root, table.loc[in_split, "first"].head(1), ("", f"{split}/"))
        for side in ("first", "second"):
            table.loc[in_split, f"image_{side}"] = prefix + table.loc[in_split, side]
    return table, ImageFolder(root)


def _read_train(path: Path) -> pd.DataFrame:
    needed: dict[str, Reading] = {"prompt": text, "file_path": _TWO_PATHS, "human_preference": _PREFERENCE}
    table = read_json(path, needed, prefix="train").to_pandas()
    choice = table["human_preference"].map(lambda value: {(1, 0): 1.0, (0, 1): 0.0}.get(tuple(value)))
    if choice.isna().any():
        record = int(choice.isna().idxmax())
        raise UserError(
            f"Record 'train{record}' of {path} has the human_preference "
            f"{[int(one) for one in table['human_preference'][record]]}, expected [1, 0] or [0, 1]."
        )
    return pd.DataFrame(
        {
            "pair_id": "train" + table.index.astype(str),
            "prompt": table["prompt"],
            "first": table["file_path"].str[0],
            "second": table["file_path"].str[1],
            "choice": choice.astype(float),
            "split": "train",
        }
    )


def _read_test(path: Path) -> pd.DataFrame:
    annotations = many(_annotation, "a list of annotators' ranks", least=0)
    table = read_json(
        path, {"prompt": text, "image_path": _PATHS, "rank": _RANKS}, {"raw_annotations": annotations}, prefix="test"
    ).to_pandas()
    table["list_id"] = "test" + table.index.astype(str)
    pairs = comparisons_of(table, images="image_path", ranks="rank", by_list=("prompt",))
    if "raw_annotations" in table:
        votes = [
            comparisons_of(
                table.loc[[row] * len(given), ["list_id", "image_path"]].assign(rank=[list(one) for one in given]),
                images="image_path",
                ranks="rank",
            )
            for row, given in table["raw_annotations"].items()
            if given is not None and len(given)
        ]
        if votes:
            grouped = pd.concat(votes).groupby("pair_id")["choice"]
            pairs["annotators"] = pairs["pair_id"].map(grouped.size()).astype(float)
            pairs["share_first"] = pairs["pair_id"].map(grouped.mean())
            pairs["share_second"] = 1 - pairs["share_first"]
    return pairs.assign(split="test")


BENCHMARKS = {
    "hpdv2": Benchmark(
        title="HPDv2",
        hub="ymhao/HPDv2",
        patterns={"train": ("train.json", "train.tar.gz"), "test": ("test.json", "test.tar.gz")},
        read=read,
        files={"train": "train.json", "test": "test.json"},
        rule="inversions",
        reported="HPSv2 83.3",
    )
}
