"""Where the rows of a table come from, and the columns that every table shares."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from probing.analysis.engine.source import FeatureSource, store_name

KEYS = ["pair_id", "prompt_id", "facet"]
"""Columns that identify a test pair."""
REFERENCE = "reference"
"""The control that is another model's rewards."""
PROVENANCE = (
    "store",
    "revision",
    "config_hash",
    "data_fingerprint",
    "resolution",
    "extraction_seed",
    "package_version",
)


def column_names(text: str, *, with_provenance: bool = True) -> tuple[str, ...]:
    """List the columns of a table from their names in one text, followed by :data:`PROVENANCE`."""
    return (*text.split(), *(PROVENANCE if with_provenance else ()))


def provenance(store: FeatureSource) -> dict[str, Any]:
    """Return where a store's measurements come from; None for what the store does not record."""
    attributes = store.attributes
    return {
        "model": attributes.get("model"),
        "data": attributes.get("data"),
        "store": store_name(store),
        "revision": attributes.get("revision"),
        "config_hash": attributes.get("config_hash"),
        "data_fingerprint": attributes.get("data_fingerprint"),
        "resolution": attributes.get("resolution"),
        "extraction_seed": attributes.get("seed"),
        "package_version": package_version(),
    }


def package_version() -> str | None:
    """Return the version of this package; None if it is not installed."""
    try:
        return metadata.version("dit-probing")
    except metadata.PackageNotFoundError:
        return None
