"""HPDv3++ (Junjun2333/HPDv3-PlusPlus): aesthetics and text-following apart, and a policy's pictures by level."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from probing.errors import UserError
from probing.preferences.benchmarks.base import Benchmark
from probing.preferences.benchmarks.rankings import comparisons_by_rating
from probing.preferences.images import ImageFolder, ImageSource, find_prefix
from probing.preferences.tables.json_file import Reading, identifier, label, number, read_json, text

FACETS = {"aes": "aesthetics", "tf": "text-following"}
"""Ends of the files' names, and the facets of their pairs."""
_PAIR: dict[str, Reading] = {"prompt": text, "path1": text, "path2": text}
_PICTURE: dict[str, Reading] = {"group_id": identifier, "image_path": text}
_FOLDERS = ("", "images/")


def read(root: Path, files: Mapping[str, str]) -> tuple[pd.DataFrame, ImageSource]:
    """Read the files of both facets; ``path1`` is always the preferred picture.

    Raises:
        UserError: A file is missing or cut off, or a record lacks a field; the message names the record.
    """
    parts = []
    for split, file in files.items():
        for end, facet in FACETS.items():
            part = read_json(root / f"{file}_{end}.json", _PAIR, prefix=f"{split}-{end}").to_pandas()
            part["pair_id"] = f"{split}-{end}" + part.index.astype(str)
            parts.append(part.assign(split=split, facet=facet))
    table = pd.concat(parts, ignore_index=True).rename(columns={"path1": "first", "path2": "second"})
    return _with_pictures(root, table.assign(choice=1.0)), ImageFolder(root)


def read_rollouts(root: Path, files: Mapping[str, str]) -> tuple[pd.DataFrame, ImageSource]:
    """Read ``rollout.json`` as ranked lists: the pictures of a group, the higher ``level`` first, equal levels tied.

    A record without a ``prompt`` takes that of a pair that has its picture. Pairs have ``iter_step``, ``capability``
    and ``ogd_std`` of both sides where the file has them.

    Raises:
        UserError: The file is missing or cut off, a record lacks a field, or the prompt of a picture is in no file.
    """
    (split, file), *_ = files.items()
    numbers = dict.fromkeys(("iter_step", "capability", "iter_norm", "ogd_std"), number)
    table = read_json(
        root / file,
        {**_PICTURE, "level": number},
        {"prompt": label, "source": label, "tier": label, **numbers},
        prefix="rollout",
    ).to_pandas()
    if table["level"].isna().any():
        row = int(np.flatnonzero(table["level"].isna())[0])
        raise UserError(f"Record 'rollout{row}' of {root / file} has no level; fill it in or remove the record.")
    if "prompt" not in table or table["prompt"].isna().any():
        table["prompt"] = _prompts(root, table)
    table = table.rename(columns={"group_id": "list_id", "image_path": "picture"})
    _refuse_two_prompts(table, root / file)
    sides = [name for name in numbers if name in table]
    pairs = comparisons_by_rating(table, {"all": "level"}, by_item=sides)
    for name in sides:
        for side in ("first", "second"):
            pairs[f"{name}_{side}"] = pairs[f"{name}_{side}"].astype(float)
    return _with_pictures(root, pairs.assign(split=split)), ImageFolder(root)


def _refuse_two_prompts(table: pd.DataFrame, path: Path) -> None:
    several = table.groupby("list_id")["prompt"].nunique() > 1
    if several.any():
        raise UserError(f"The group {several.idxmax()!s:.80} of {path} has several prompts; give each prompt a group.")


def _prompts(root: Path, table: pd.DataFrame) -> pd.Series:
    known: dict[str, str] = {}
    for path in sorted(root.glob("*/t*_*.json")):
        if path.stem in {f"{split}_{end}" for split in ("train", "test") for end in FACETS}:
            pairs = read_json(path, _PAIR, prefix=path.stem).to_pandas()
            for column in ("path1", "path2"):
                known.update(zip(pairs[column], pairs["prompt"], strict=True))
    prompts = table["image_path"].map(known)
    if "prompt" in table:
        prompts = table["prompt"].fillna(prompts)
    if prompts.isna().any():
        row = int(np.flatnonzero(prompts.isna())[0])
        raise UserError(
            f"Record 'rollout{row}' has no prompt, and no pair has its picture {table['image_path'][row]!r:.80}; put "
            f"the folders train and test beside rollout.json, or add the field prompt."
        )
    return prompts


def _with_pictures(root: Path, table: pd.DataFrame) -> pd.DataFrame:
    prefix = find_prefix(root, table["first"].head(1), _FOLDERS)
    return table.assign(image_first=prefix + table["first"], image_second=prefix + table["second"])


_HUB = "Junjun2333/HPDv3-PlusPlus"
BENCHMARKS = {
    "hpdv3pp": Benchmark(
        title="HPDv3++",
        hub=_HUB,
        patterns={split: (f"{split}/*.json", "images.tar*") for split in ("train", "test")},
        read=read,
        files={"train": "train/train", "test": "test/test"},
        rule="micro-wrong",
        reported="",
        randomize_sides=True,
    ),
    "hpdv3pp-rollout": Benchmark(
        title="HPDv3++, rollouts of a policy",
        hub=_HUB,
        patterns={"train": ("rollout.json", "train/*.json", "test/*.json", "images.tar*")},
        read=read_rollouts,
        files={"train": "rollout.json"},
        rule="kendall",
        reported="",
        randomize_sides=True,
    ),
}
