"""What the page is made of: every table of a results folder, its figures, and the lines of provenance beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from probing.errors import UserError
from probing.page.sections import place_of
from probing.plots import find_table, read_table

Draw = Callable[[pd.DataFrame], Figure]


@dataclass(frozen=True)
class Source:
    """A table and what is drawn from it.

    Attributes:
        name: Of the table, without a suffix.
        path: Where it was read.
        table: Its rows.
        figures: The functions that draw it, by the figure's name; none if the table has no figure.
        records: The lines of provenance that lie beside figures drawn before, by the figure's name.
    """

    name: str
    path: Path
    table: pd.DataFrame
    figures: Mapping[str, Draw]
    records: Mapping[str, Mapping[str, Any]]


def collect(figures: Mapping[str, tuple[str, Draw]], results: Path, drawn: Path | None = None) -> list[Source]:
    """Read every table of a folder, in the page's order: those with figures first.

    Args:
        figures: By name, the table that a figure is drawn from and the function that draws it.
        results: Folder of tables, or of figures with their CSV.
        drawn: Folder of figures drawn before, whose lines of provenance are shown; ``results`` too is looked at.

    Raises:
        UserError: A folder is missing, no table has a figure, or a table cannot be read.
    """
    for folder in (results, drawn):
        if folder is not None and not folder.is_dir():
            raise UserError(f"There is no folder {folder}; run python -m probing.fit first, or give the right folder.")
    paths: dict[str, Path] = {}
    draws: dict[str, dict[str, Draw]] = {}
    for figure, (table, draw) in figures.items():
        path = paths.get(table) or find_table(results, table, figure)
        if path is not None:
            paths[table] = path
            draws.setdefault(table, {})[figure] = draw
    if not paths:
        known = ", ".join(dict.fromkeys(f"{table}.parquet" for table, _ in figures.values()))
        raise UserError(f"{results} has none of {known}; run python -m probing.fit first.")
    for path in sorted(results.glob("*.parquet")):
        paths.setdefault(path.stem, path)
    names = sorted(paths, key=lambda name: (name not in draws, place_of(name), name))
    folders = [folder for folder in (drawn, results) if folder is not None]
    return [
        Source(name, paths[name], _read(paths[name]), draws.get(name, {}), _records(draws.get(name, {}), folders))
        for name in names
    ]


def _read(path: Path) -> pd.DataFrame:
    try:
        return read_table(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a table; make it again, or take it out of the folder.") from error


def _records(figures: Mapping[str, Draw], folders: list[Path]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for figure in figures:
        for path in (folder / f"{figure}.json" for folder in folders):
            if figure in found or not path.is_file():
                continue
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise UserError(f"{path} is no line of provenance; run python -m probing.figures again.") from error
            if isinstance(record, dict):
                found[figure] = record
    return found
