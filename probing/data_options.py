"""The options of commands that load preference data and split pairs: name, type, default and help, stated once."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pandas as pd

from probing import preferences
from probing.commands import words
from probing.preferences import NAMES, PreferenceData, load_pairs
from probing.preferences.registry import Leaks
from probing.preferences.splits import SplitRule


@dataclass(frozen=True)
class DataOptions:
    """Which preference data to load."""

    data: str = "testbed"
    """name of a data set, or a file of pairs (.csv, .parquet, .jsonl)"""
    data_root: Path | None = None
    """folder of the data set's files; without it, a benchmark is fetched from the Hugging Face hub"""
    where: str | None = None
    """condition on columns of pairs, such as "confidence >= 0.95 and facet == 'quality'" (and, or, not)"""
    limit: int | None = None
    """largest number of items, by whole prompt groups"""
    leaks: Leaks = "refuse"
    """if a prompt is in two splits: refuse, drop its less held-out pairs, or keep them"""

    def load(self, split: str | Collection[str] | None = None) -> PreferenceData:
        """Load the pairs; errors as :func:`probing.preferences.load_pairs`."""
        return load_pairs(
            self.data, root=self.data_root, split=split, where=self.where, limit=self.limit, leaks=self.leaks
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
        return preferences.split_pairs(pairs, self.split_by, stratify=self.stratify, held_out=self.held_out, seed=seed)


def add_data_options(parser: argparse.ArgumentParser, *, leaks: Leaks = "refuse") -> None:
    """Add the options of :class:`DataOptions`, with another default of ``--leaks``."""
    _add_options(parser, DataOptions, {"leaks": leaks}, {"data": f"; data sets: {', '.join(NAMES)}"})


def load_data(arguments: argparse.Namespace, *, split: str | Collection[str] | None) -> PreferenceData:
    """Load the data that parsed options select."""
    return _from_arguments(DataOptions, arguments).load(split)


def add_split_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of :class:`SplitOptions`; each command adds its own ``--seed``, which also seeds splits."""
    _add_options(parser, SplitOptions, {}, {})


def split_pairs(pairs: pd.DataFrame, arguments: argparse.Namespace) -> pd.DataFrame:
    """Split the pairs of a store as parsed options select."""
    return _from_arguments(SplitOptions, arguments).split(pairs, seed=arguments.seed)


def _add_options(
    parser: argparse.ArgumentParser, options: type, defaults: Mapping[str, Any], details: Mapping[str, str]
) -> None:
    types, texts = get_type_hints(options), _field_docstrings(options)
    for field in dataclasses.fields(options):
        kind = types[field.name]
        settings: dict[str, Any] = {"help": texts[field.name] + details.get(field.name, "")}
        if get_origin(kind) is Literal:
            settings["choices"] = get_args(kind)
        elif get_origin(kind) is tuple:
            settings["type"] = words
        else:
            settings["type"] = next(one for one in (get_args(kind) or (kind,)) if one is not type(None))
        default = defaults.get(field.name, field.default)
        settings["default"] = list(default) if isinstance(default, tuple) else default
        parser.add_argument(f"--{field.name.replace('_', '-')}", **settings)


def _field_docstrings(options: type) -> dict[str, str]:
    """Read the string under each field of a dataclass."""
    (definition,) = ast.parse(inspect.getsource(options)).body
    assert isinstance(definition, ast.ClassDef)
    texts = {}
    for field, text in pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            texts[field.target.id] = inspect.cleandoc(ast.literal_eval(text.value)).replace("%", "%%")
    return texts


def _from_arguments(options: type, arguments: argparse.Namespace) -> Any:
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(options)}
    return options(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
