"""The options with which every command takes preference data, and splits the pairs beside a store."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from probing.commands import words
from probing.preferences.data import PreferenceData
from probing.preferences.registry import LEAKS, NAMES, load
from probing.preferences.splits import SPLIT_RULES, resplit


def add_data_options(parser: argparse.ArgumentParser, *, leaks: str = "refuse") -> None:
    """Add ``--data``, ``--data-root``, ``--where``, ``--limit``, ``--leaks``."""
    add = parser.add_argument
    add("--data", default="testbed", help=f"of {', '.join(NAMES)}, or a file of pairs (.csv, .parquet, .jsonl)")
    add("--data-root", type=Path, help="folder of the data set's files; a benchmark is fetched from the hub without")
    add(
        "--where",
        metavar="CONDITION",
        help="keep pairs whose columns fulfil comparisons "
        "joined by and, or, not, such as \"confidence >= 0.95 and facet == 'quality'\"",
    )
    add("--limit", type=int, help="at most so many items, by whole prompt groups")
    add(
        "--leaks",
        choices=LEAKS,
        default=leaks,
        help="where a prompt stands in two splits: refuse, drop its less held-out pairs, or keep them",
    )


def load_data(arguments: argparse.Namespace, *, split: str | Collection[str] | None) -> PreferenceData:
    """Load what the options ask for.

    Raises:
        UserError: What :func:`probing.preferences.load` and the selections refuse.
    """
    data = load(arguments.data, root=arguments.data_root, split=split, leaks=arguments.leaks)
    if arguments.where:
        data = data.where(arguments.where)
    return data.select(limit=arguments.limit) if arguments.limit is not None else data


def add_split_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--split-by``, ``--stratify``, ``--held-out``; ``--seed``, which draws splits, is the command's own."""
    add = parser.add_argument
    add("--split-by", choices=SPLIT_RULES, default="official", help="how training and test pairs are told apart")
    add("--stratify", metavar="COLUMN", help="with --split-by prompt: a column in which both sides shall be alike")
    add("--held-out", type=words, default=[], help="with --split-by source-model: models to hold out, with commas")


def split_pairs(pairs: pd.DataFrame, arguments: argparse.Namespace) -> pd.DataFrame:
    """Split the pairs of a store as the options ask.

    Raises:
        UserError: What :func:`probing.preferences.splits.resplit` refuses.
    """
    return resplit(
        pairs, arguments.split_by, stratify=arguments.stratify, held_out=arguments.held_out, seed=arguments.seed
    )
