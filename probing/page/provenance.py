"""Where numbers come from: models, data, stores, seeds and versions, as the tables themselves say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pandas as pd

from probing.page.grid import Grid, csv_of, distinct, grid
from probing.page.sources import Source

_STORE = (
    "store",
    "model",
    "revision",
    "config_hash",
    "data",
    "data_fingerprint",
    "resolution",
    "extraction_seed",
    "package_version",
)
_FACTS = {
    "model": "models",
    "data": "data",
    "split": "split",
    "facet": "facets",
    "stream": "streams",
    "sigma": "σ",
    "probe": "probes",
    "scaling": "scaling",
    "seed": "seeds",
    "revision": "model revisions",
    "config_hash": "model configurations",
    "data_fingerprint": "data fingerprints",
    "extraction_seed": "seeds of the noise",
    "package_version": "dit-probing",
}
_COUNTS = {"n_pairs": "pairs a measurement", "n_prompts": "prompts a measurement"}
_DRAWN_WITH = ("matplotlib", "pandas", "jinja2")
_MOST = 12


def stores(tables: Iterable[pd.DataFrame]) -> Grid | None:
    """List the feature stores behind tables, each once; None if no table names one."""
    parts = [
        table[[name for name in _STORE if name in table]].drop_duplicates()
        for table in tables
        if "store" in table or "config_hash" in table
    ]
    if not parts:
        return None
    joined = pd.concat([part.astype(object) for part in parts], ignore_index=True)
    joined = joined.dropna(how="all").drop_duplicates().dropna(axis=1, how="all")
    words = {name: str(name).replace("_", " ") for name in joined}
    return grid(joined.rename(columns=words)) if len(joined) else None


def facts(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Say what a table's rows are about, a line a column, and on how many pairs and prompts."""
    said = []
    for name, word in _FACTS.items():
        values = distinct(table[name]) if name in table else []
        if values:
            more = f" and {len(values) - _MOST} more" if len(values) > _MOST else ""
            said.append((word, ", ".join(values[:_MOST]) + more))
    for name, word in _COUNTS.items():
        if name in table and table[name].notna().any():
            said.append((word, _span(table[name])))
    return said


def commands(source: Source, redraw: str) -> list[tuple[str, str]]:
    """Say by which command each figure of a table was drawn before, and whether that was from the same rows."""
    said = []
    for figure, drawn in source.figures.items():
        record = drawn.record
        if record is None:
            said.append((figure, f"{redraw} draws it again"))
            continue
        with_versions = ", ".join(f"{name} {record[name]}" for name in _DRAWN_WITH if name in record)
        before = f"drawn before by {public_command(str(record.get('command', redraw)))}"
        before += f" with {with_versions}" if with_versions else ""
        same = record.get("table_sha256") == hashlib.sha256(csv_of(drawn.table)).hexdigest()
        said.append((figure, f"{before}, from {'the same rows' if same else 'other rows than these'}"))
    return said


def public_path(path: Path) -> str:
    """Name a folder as it was given, or by its name alone: pages are published, the folders of this machine are not."""
    return (path.name or ".") if path.is_absolute() else str(path)


def public_command(command: str) -> str:
    """Write a command with :func:`public_path` of whatever folders it names."""
    return " ".join(public_path(Path(word)) if word.startswith("/") else word for word in command.split(" "))


def versions() -> list[tuple[str, str]]:
    """Give the versions of what draws the page."""
    return [(name, metadata.version(name)) for name in _DRAWN_WITH]


def _span(column: pd.Series) -> str:
    low, high = int(column.min()), int(column.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
