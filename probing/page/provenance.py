"""Where numbers come from: models, data, stores, seeds and versions, as the tables themselves say."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata

import pandas as pd

from probing.page.grid import Grid, distinct, grid
from probing.page.sources import Source

_STORE = (
    "store", "model", "revision", "config_hash", "data", "data_fingerprint", "resolution", "extraction_seed",
    "package_version",
)  # fmt: skip
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
    words = {name: name.replace("_", " ") for name in joined}
    return grid(joined.rename(columns=words)) if len(joined) else None


def facts(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Say what a table's rows are about, a line a column, and on how many pairs and prompts."""
    said = []
    for name, word in _FACTS.items():
        values = distinct(table[name]) if name in table else []
        if values:
            more = f" and {len(values) - _MOST} more" if len(values) > _MOST else ""
            said.append((word, ", ".join(values[:_MOST]) + more))
    said += [
        (word, _span(table[name])) for name, word in (("n_pairs", "pairs a row"), ("n_prompts", "prompts a row"))
        if name in table and table[name].notna().any()
    ]  # fmt: skip
    return said


def commands(source: Source, redraw: str, table_hash: str | None) -> list[tuple[str, str]]:
    """Say by which command each figure of a table is drawn, and whether the one drawn before shows the same table."""
    said = []
    for figure in source.figures:
        record = source.records.get(figure)
        if record is None:
            said.append((figure, f"{redraw} draws it again"))
            continue
        same = table_hash is not None and record.get("table_sha256") == table_hash
        versions = ", ".join(f"{name} {record[name]}" for name in _DRAWN_WITH if name in record)
        said.append(
            (
                figure,
                f"{record.get('command', redraw)} drew {'this table' if same else 'another table, under the same name'}"
                + (f" ({versions})" if versions else ""),
            )
        )
    return said


def versions() -> list[tuple[str, str]]:
    """Give the versions of what draws the page."""
    return [(name, metadata.version(name)) for name in _DRAWN_WITH]


def _span(column: pd.Series) -> str:
    low, high = int(column.min()), int(column.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
