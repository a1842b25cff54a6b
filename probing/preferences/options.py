"""The options with which every command takes preference data."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path

from probing.preferences.data import PreferenceData
from probing.preferences.registry import LEAKS, NAMES, load


def add_data_options(parser: argparse.ArgumentParser, *, leaks: str = "refuse") -> None:
    """Add ``--data``, ``--data-root``, ``--where``, ``--limit``, ``--leaks``."""
    add = parser.add_argument
    add("--data", default="testbed", help=f"of {', '.join(NAMES)}, or a file of pairs (.csv, .parquet, .jsonl)")
    add("--data-root", type=Path, help="folder of the data set's files; a benchmark is fetched from the hub without")
    add("--where", metavar="CONDITION", help="keep pairs whose columns fulfil it, such as 'confidence >= 0.95'")
    add("--limit", type=int, help="at most so many items, by whole prompt groups")
    add("--leaks", choices=LEAKS, default=leaks,
        help="where a prompt stands in two splits: refuse, drop its less held-out pairs, or keep them")  # fmt: skip


def load_data(arguments: argparse.Namespace, *, split: str | Collection[str] | None) -> PreferenceData:
    """Load what the options ask for.

    Raises:
        UserError: What :func:`probing.preferences.load` and the selections refuse.
    """
    data = load(arguments.data, root=arguments.data_root, split=split, leaks=arguments.leaks)
    if arguments.where:
        data = data.where(arguments.where)
    return data.select(limit=arguments.limit) if arguments.limit is not None else data
