"""Provenance of the numbers: models, data, stores, seeds and versions, read from the tables."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pandas as pd

from probing.plots.curves import format_range
from probing.report.grid import Grid, csv_of, distinct, grid
from probing.report.sources import TableSource
from probing.result_tables import measured_rows

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
_COUNTS = {"n_pairs": "pairs per measurement", "n_prompts": "prompts per measurement"}
_DRAWN_WITH = ("matplotlib", "pandas", "jinja2")
_MAX_VALUES = 12


def stores(tables: Iterable[pd.DataFrame]) -> Grid | None:
    """List the feature stores behind tables, each once; None if no table names one."""
    parts = [
        table[[name for name in _STORE if name in table]].drop_duplicates().astype(object)
        for table in tables
        if "store" in table or "config_hash" in table
    ]
    if not parts:
        return None
    joined = pd.concat(parts, ignore_index=True)
    joined = joined.dropna(how="all").drop_duplicates().dropna(axis=1, how="all")
    return grid(joined.rename(columns=lambda name: str(name).replace("_", " "))) if len(joined) else None


def facts(table: pd.DataFrame) -> list[tuple[str, str]]:
    """List a table's models, data, settings and counts, a line a column."""
    table = measured_rows(table)
    lines = []
    for name, label in _FACTS.items():
        values = distinct(table[name]) if name in table else []
        if values:
            more = f" and {len(values) - _MAX_VALUES} more" if len(values) > _MAX_VALUES else ""
            lines.append((label, ", ".join(values[:_MAX_VALUES]) + more))
    return lines + [
        (label, format_range(table[name]))
        for name, label in _COUNTS.items()
        if name in table and table[name].notna().any()
    ]


def figure_origins(source: TableSource, command: str) -> list[tuple[str, str]]:
    """State by which command each figure of a table was drawn, and whether an earlier one shows the same rows."""
    origins = []
    for name, inputs in source.figures.items():
        record = inputs.record
        if record is None:
            origins.append((name, f"drawn by {command}"))
            continue
        packages = ", ".join(f"{package} {record[package]}" for package in _DRAWN_WITH if package in record)
        before = f"drawn before by {_public_command(str(record.get('command', command)))}"
        before += f" with {packages}" if packages else ""
        same = record.get("table_sha256") == hashlib.sha256(csv_of(inputs.table)).hexdigest()
        origins.append((name, f"{before}, from {'the same rows' if same else 'other rows than these'}"))
    return origins


def public_path(path: Path) -> str:
    """Return a relative path as given, and only the name of an absolute one: pages are published."""
    return (path.name or ".") if path.is_absolute() else str(path)


def _public_command(command: str) -> str:
    """Replace every absolute path of a command by :func:`public_path`."""
    return " ".join(public_path(Path(word)) if word.startswith("/") else word for word in command.split(" "))


def versions() -> list[tuple[str, str]]:
    """List the versions of the packages that draw the page."""
    return [(name, metadata.version(name)) for name in _DRAWN_WITH]
