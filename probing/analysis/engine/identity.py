"""Identity of a table: stores, pairs and options by content, recorded in its file and compared before reuse."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from probing.analysis.engine.provenance import REFERENCE, package_version, provenance
from probing.analysis.engine.recipe import Recipe
from probing.analysis.engine.source import FeatureSource, digest_of, store_name
from probing.errors import UserError
from probing.table_files import read_metadata, write_parquet

Subject = tuple[str | None, str | None]
"""A model and a store; None for a table without a store."""


@dataclass(frozen=True)
class Identity:
    """Everything that decides the values of an experiment's tables.

    Attributes:
        subjects: Measured models with their stores, without controls and other draws of the noise.
        stores: Name and digest of every store, in the order of their roles; for a measurement without a store, digest
            of the model's weights.
        pairs: Digest of the pairs, or of the items.
        options: Everything else that changes a value.
    """

    subjects: tuple[Subject, ...]
    stores: tuple[tuple[str | None, str], ...]
    pairs: str
    options: Mapping[str, Any]

    @property
    def metadata(self) -> dict[str, Any]:
        """The identity as metadata of a Parquet file."""
        metadata = {
            "subjects": self.subjects,
            "stores": self.stores,
            "pairs": self.pairs,
            "options": dict(self.options),
            "package_version": package_version(),
        }
        return json.loads(json.dumps(metadata, sort_keys=True, default=_json))

    def difference(self, table: Path) -> str | None:
        """Compare with the inputs of a table on disk.

        Returns:
            The first difference; None without one.
        """
        if not table.is_file():
            return "there is no such table"
        old, new = read_metadata(table), self.metadata
        if not {"stores", "pairs", "options", "package_version"} <= set(old):
            return "it does not record what it was made from"
        if problem := _unreadable(table):
            return problem
        if not _is_list_of_pairs(old["stores"]):
            return "it does not record what it was made from"
        if _digests(old["stores"]) != _digests(new["stores"]):
            return _describe_stores(old["stores"], new["stores"])
        if old["pairs"] != new["pairs"]:
            return "it was made from other pairs"
        before, after = (options if isinstance(options := made["options"], dict) else {} for made in (old, new))
        if change := _describe_change(before, after):
            return change
        if old["package_version"] != new["package_version"]:
            return f"it was made by version {old['package_version']} and this is {new['package_version']}"
        return None

    def refuse_others(self, tables: Iterable[Path], *, overwrite: bool) -> None:
        """Refuse to replace tables of another subject; see :func:`refuse_others`."""
        refuse_others(tables, self.subjects, overwrite=overwrite)

    def write(self, tables: Mapping[str, pd.DataFrame], folder: Path) -> None:
        """Write tables as ``NAME.parquet``, each whole or not at all, with this identity."""
        for name, table in tables.items():
            write_parquet(folder / f"{name}.parquet", table, self.metadata)


def identify(
    stores: Sequence[FeatureSource],
    pairs: pd.DataFrame,
    options: Mapping[str, Any],
    *,
    subjects: Sequence[FeatureSource] | None = None,
) -> Identity:
    """Identify an experiment on feature stores.

    Args:
        stores: All stores, in the order of their roles.
        pairs: The pairs.
        options: Everything else that changes a value; tables and arrays are replaced by their digests.
        subjects: The measured stores; the first store if None.
    """
    measured = stores[:1] if subjects is None else subjects
    return Identity(
        tuple((_text(store.attributes.get("model")), store_name(store)) for store in measured),
        tuple((store_name(store), digest_of(store)) for store in stores),
        table_digest(pairs),
        {name: _option(value) for name, value in options.items()},
    )


def refuse_others(tables: Iterable[Path], subjects: Sequence[Subject], *, overwrite: bool) -> None:
    """Refuse to replace the tables of another model or store; those of the same subject may be replaced.

    Args:
        tables: Files that will be written.
        subjects: The subjects that will be measured.
        overwrite: Allow any replacement.

    Raises:
        UserError: A table holds another subject.
    """
    for table in () if overwrite else tables:
        existing = subjects_of(table)
        if existing is not None and not all(any(_same(old, new) for new in subjects) for old in existing):
            raise UserError(
                f"{table} holds the results of {_name(existing)}, and this command would replace them by those of "
                f"{_name(subjects)}; give another folder by --output, or --overwrite."
            )


def check_made_from(curve: pd.DataFrame | str, rows: pd.DataFrame, store: FeatureSource, pairs: pd.DataFrame) -> None:
    """Refuse a reward curve that was not fitted on this store and these pairs.

    A curve without metadata (of an older version, or a data frame) does not record its pairs; its model, store and
    revision are compared.

    Args:
        curve: The path of the curve, or its rows.
        rows: Its rows.
        store: The store to read.
        pairs: The pairs to fit.

    Raises:
        UserError: With the first difference.
    """
    metadata = read_metadata(Path(curve)) if isinstance(curve, str) else {}
    label = str(curve) if isinstance(curve, str) else "The reward curve"
    made_from = f"{label} was not made from {store_name(store)} as it is now"
    fix = "run python -m probing.measure reward-curve on this store, or give its curve"
    stores = metadata.get("stores")
    if not _is_list_of_pairs(stores):
        trained = rows[rows["control"] == "trained"] if "control" in rows else rows
        origin = provenance(store)
        for name in (name for name in ("model", "store", "revision") if name in rows):
            values = {_text(value) for value in trained[name]}
            if values != {_text(origin[name])}:
                raise UserError(f"{made_from}: {name} is {_first(values)} in the curve and {origin[name]} here; {fix}.")
        return
    if digest_of(store) not in _digests(stores):
        raise UserError(f"{made_from}: its features are those of {_name(subjects_of(Path(str(curve))) or [])}; {fix}.")
    if metadata.get("pairs") != table_digest(pairs):
        raise UserError(
            f"{label} was fitted on other pairs or another split than these, so its selection may rest on pairs that "
            f"are test pairs now; give the same options of the split as to the reward curve, or measure it again."
        )


def recipe_of(curve: pd.DataFrame | str) -> Recipe | None:
    """Return the recipe that a table on disk was fitted with; None if it does not record one."""
    recipe = read_metadata(Path(curve)).get("options", {}).get("recipe") if isinstance(curve, str) else None
    names = [field.name for field in fields(Recipe)]
    return Recipe(**{name: recipe[name] for name in names if name in recipe}) if isinstance(recipe, dict) else None


def subjects_of(table: Path) -> list[Subject] | None:
    """Return the subjects of a table; None without a readable table.

    For a table of an older version, without metadata, it is the first model and store in its columns.
    """
    if not table.is_file():
        return None
    recorded = read_metadata(table).get("subjects")
    if _is_list_of_pairs(recorded):
        return [(model, store) for model, store in recorded]
    try:
        columns = [name for name in ("model", "store", "control") if name in pq.read_schema(table).names]
        if not {"model", "store"} & set(columns):
            return None
        rows = pd.read_parquet(table, columns=columns)
    except (OSError, ValueError, KeyError, pa.ArrowException):
        # A damaged table may be replaced.
        return None
    if "control" in rows:
        rows = rows[rows["control"] != REFERENCE]
    rows = rows.reindex(columns=["model", "store"]).drop_duplicates()
    subjects = [(_text(model), _text(store)) for model, store in rows.itertuples(index=False, name=None)]
    return subjects[:1] or None


def table_digest(table: pd.DataFrame) -> str:
    """Return a digest of a table's column names and values, in their order."""
    digest = hashlib.sha256(json.dumps([str(name) for name in table]).encode())
    digest.update(str(len(table)).encode())
    for name in table:
        hashed = pd.util.hash_pandas_object(_hashable(table[name]), index=False)
        digest.update(hashed.to_numpy().tobytes())
    return digest.hexdigest()


def array_digest(array: np.ndarray) -> str:
    """Return a digest of an array's shape, type and values."""
    digest = hashlib.sha256(f"{array.shape} {array.dtype}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _hashable(column: pd.Series) -> pd.Series:
    if column.dtype != object:
        return column
    scalar = (str, bytes, int, float, bool, type(None), type(pd.NA), np.generic)
    return column.map(lambda value: value if isinstance(value, scalar) else json.dumps(value, default=_json))


def _option(value: Any) -> Any:
    if isinstance(value, pd.DataFrame):
        return f"table {table_digest(value)}"
    if isinstance(value, np.ndarray):
        return f"array {array_digest(value)}"
    if isinstance(value, Mapping):
        return {str(name): _option(item) for name, item in value.items()}
    return value


def _json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)


def _is_list_of_pairs(value: Any) -> TypeGuard[list[list[Any]]]:
    return isinstance(value, list) and all(isinstance(item, list) and len(item) == 2 for item in value)


def _digests(stores: list[Any]) -> list[Any]:
    """Return the digests without names, since a store may be moved."""
    return [digest for _, digest in stores]


def _describe_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Describe the first option that changed; within a group of options, the option of the group."""
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old != new:
            if isinstance(old, dict) and isinstance(new, dict):
                return _describe_change(old, new)
            return f"{name} was {_short(old)} and is {_short(new)}"
    return None


def _describe_stores(old: list[Any], new: list[Any]) -> str:
    before, after = ([str(name) for name, _ in stores] for stores in (old, new))
    if after == ["None"]:
        return "the weights are others"
    if before != after:
        return f"it was made from {', '.join(before) or 'no store'} and the stores are {', '.join(after)}"
    changed = [name for name, one, two in zip(after, _digests(old), _digests(new), strict=True) if one != two]
    return f"the features of {', '.join(changed)} are others"


def _unreadable(table: Path) -> str | None:
    try:
        pq.read_table(table)
    except (OSError, ValueError, pa.ArrowException):
        return "it is damaged"
    return None


def _same(one: Subject, other: Subject) -> bool:
    """Compare models and stores by name, if both have one."""
    return all(a is None or b is None or a == b for a, b in zip(one, other, strict=True))


def _name(subjects: Sequence[Subject]) -> str:
    def label(model: str | None, store: str | None) -> str:
        return " in ".join(part for part in (model, store) if part) or "an unnamed store"

    return ", ".join(label(*subject) for subject in subjects)


def _first(values: set[str | None]) -> str:
    return sorted(map(str, values))[0] if values else "nothing"


def _text(value: Any) -> str | None:
    return None if value is None or pd.isna(value) else str(value)


def _short(value: Any) -> str:
    text = "not given" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
