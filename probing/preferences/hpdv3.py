"""HPDv3 (MizzenAI/HPDv3): ``train.json`` or ``all.json``, and ``test.json``, from a local folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from probing.errors import UserError
from probing.preferences.data import PreferenceData
from probing.preferences.tables import from_chosen_and_rejected, numbers

_FILES = {
    "hpdv3": {"train": "train.json", "test": "test.json"},
    "hpdv3-all": {"train": "all.json", "test": "test.json"},
}
NAMES = tuple(_FILES)
_NEEDED = ("prompt", "path1", "path2")


def load(root: Path, *, name: str = "hpdv3", split: str | None = None, seed: int = 0) -> PreferenceData:
    """Read the official splits as published; ``path1`` is always the preferred picture.

    Nothing is filtered: a threshold on ``confidence`` is for the caller to set.

    Derivatives of the files hold strings where the published ones hold numbers and lists; both are read. Beside the
    usual columns, pairs have ``confidence``, ``annotators`` (their number), ``model_chosen`` and ``model_rejected``.

    Args:
        root: Folder of the JSON files and the pictures.
        name: ``hpdv3`` trains on ``train.json``, ``hpdv3-all`` on ``all.json``.
        split: ``train``, ``test``, or None for both.
        seed: Of the places.

    Raises:
        UserError: A file or picture is missing, a record lacks a field or holds what cannot be read, or one prompt
            stands in both splits.
    """
    files = _FILES[name]
    if split is not None and split not in files:
        raise UserError(f"HPDv3 has the splits {', '.join(files)}, got {split!r}.")
    tables = []
    for part in [split] if split else list(files):
        path = root / files[part]
        if not path.is_file():
            raise UserError(f"{path} is missing; --data-root is the folder that holds HPDv3's {path.name}.")
        try:
            records = pd.DataFrame(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise UserError(f"{path} is no JSON list of records ({error}).") from error
        missing = [column for column in _NEEDED if column not in records]
        if missing:
            raise UserError(f"{path} lacks the fields {', '.join(missing)}; it has {', '.join(records.columns)}.")
        records["pair_id"] = part + records.index.astype(str)
        records["split"] = part
        tables.append(records)
    table = pd.concat(tables, ignore_index=True).rename(
        columns={"path1": "chosen", "path2": "rejected", "model1": "model_chosen", "model2": "model_rejected"}
    )
    if "confidence" in table:
        table["confidence"] = numbers(table["confidence"], table["pair_id"])
    if "choice_dist" in table:
        table["annotators"] = [
            _votes(value, pair) for value, pair in zip(table["choice_dist"], table["pair_id"], strict=True)
        ]
        table = table.drop(columns="choice_dist")
    return from_chosen_and_rejected(
        name, table, root, seed=seed, mend=f"take their records out of {files['train']}, so that the test stays whole"
    )


def _votes(value: Any, record: str) -> float:
    """Sum ``[12, 7]``, ``"[12, 7]"``; NaN for null."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = "?"
    if value is None or (isinstance(value, float) and value != value):
        return float("nan")
    if not (isinstance(value, list) and len(value) == 2 and all(isinstance(v, int | float) for v in value)):
        raise UserError(f"Record {record!r} has a choice_dist that is no pair of counts.")
    return float(sum(value))
