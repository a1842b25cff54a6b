"""HPDv3 (MizzenAI/HPDv3): ``train.json``, ``all.json`` and ``test.json`` from a local folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from probing.errors import UserError
from probing.preferences.data import PreferenceData
from probing.preferences.tables import from_chosen_and_rejected

_FILES = {"train": "train.json", "test": "test.json"}
_NEEDED = ("prompt", "path1", "path2")


def load(root: Path, *, split: str | None = None, seed: int = 0) -> PreferenceData:
    """Read the official splits as published; ``path1`` is always the preferred picture.

    Derivatives of the files hold strings where the published ones hold numbers and lists; both are read. Beside the
    usual columns, pairs have ``confidence``, ``annotators`` (their number), ``model_chosen`` and ``model_rejected``.

    Args:
        root: Folder of the JSON files and the pictures.
        split: ``train``, ``test``, or None for both.
        seed: Of the places.

    Raises:
        UserError: A file or picture is missing, a record lacks a field or holds what cannot be read.
    """
    if split is not None and split not in _FILES:
        raise UserError(f"HPDv3 has the splits {', '.join(_FILES)}, got {split!r}.")
    tables = []
    for name in [split] if split else list(_FILES):
        path = root / _FILES[name]
        if not path.is_file():
            raise UserError(f"{path} is missing; --data-root is the folder that holds HPDv3's {path.name}.")
        try:
            records = pd.DataFrame(json.loads(path.read_text()))
        except ValueError as error:
            raise UserError(f"{path} is no JSON list of records ({error}).") from error
        missing = [column for column in _NEEDED if column not in records]
        if missing:
            raise UserError(f"{path} lacks the fields {', '.join(missing)}; it has {', '.join(records.columns)}.")
        records["pair_id"] = name + records.index.astype(str)
        records["split"] = name
        tables.append(records)
    table = pd.concat(tables, ignore_index=True).rename(
        columns={"path1": "chosen", "path2": "rejected", "model1": "model_chosen", "model2": "model_rejected"}
    )
    if "confidence" in table:
        table["confidence"] = _numbers(table, "confidence")
    if "choice_dist" in table:
        table["annotators"] = [
            _votes(value, pair) for value, pair in zip(table["choice_dist"], table["pair_id"], strict=True)
        ]
        table = table.drop(columns="choice_dist")
    return from_chosen_and_rejected("hpdv3", table, root, seed=seed)


def _numbers(table: pd.DataFrame, column: str) -> pd.Series:
    values = table[column].mask(table[column].isin(["null", "None", ""]))
    read = pd.to_numeric(values, errors="coerce")
    wrong = read.isna() & values.notna()
    if wrong.any():
        row = table.loc[wrong].iloc[0]
        raise UserError(f"Record {row['pair_id']!r} has the {column} {row[column]!r}, which is no number.")
    return read


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
