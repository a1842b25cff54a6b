"""The options of commands that load preference data and split pairs: name, type, default and help, stated once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import probing
from probing.preferences.rules import Duplicates, Leaks, SplitRule

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class DataOptions:
    """Which preference data to load."""

    data: str = "testbed"
    """name of a data set, or a file of pairs (.csv, .parquet, .jsonl); several with commas between, or paper-mixture"""
    data_root: Path | None = None
    """folder or URL of the data set's files (of several, each in a folder of its name); without it, a benchmark is
    fetched from the Hugging Face hub"""
    where: str | None = None
    """condition on columns of pairs, such as "confidence >= 0.95 and facet == 'quality'" (and, or, not)"""
    limit: int | None = None
    """largest number of items, by whole prompt groups"""
    leaks: Leaks = "refuse"
    """if a prompt is in two splits: refuse, drop its less held-out pairs, or keep them"""
    mix: tuple[float, ...] = ()
    """of several data sets, the share of each among the training pairs; default: all pairs"""
    duplicates: Duplicates = "drop"
    """of several data sets, if two have a prompt: drop the pairs of the later one, or keep them"""

    def load(self, split: str | Collection[str] | None = None) -> probing.PreferenceData:
        """Load the pairs; errors as :func:`probing.preferences.load_pairs`."""
        return probing.load_pairs(
            self.data,
            root=self.data_root,
            split=split,
            where=self.where,
            limit=self.limit,
            leaks=self.leaks,
            shares=self.mix,
            duplicates=self.duplicates,
        )


@dataclass(frozen=True)
class SplitOptions:
    """How to split the pairs of a store into training and test pairs."""

    split_by: SplitRule = "official"
    """how training and test pairs are separated"""
    stratify: str | None = None
    """with --split-by prompt: column whose values are distributed alike in both splits"""
    held_out: tuple[str, ...] = ()
    """with --split-by source-model: source models to hold out, separated by commas"""

    def split(self, pairs: pd.DataFrame, *, seed: int) -> pd.DataFrame:
        """Split pairs; errors as :func:`probing.preferences.split_pairs`."""
        return probing.split_pairs(pairs, self.split_by, stratify=self.stratify, held_out=self.held_out, seed=seed)
