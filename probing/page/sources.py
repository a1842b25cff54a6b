"""What the page is made of: every table of a results folder, its figures, and the lines of provenance beside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from probing.errors import UserError
from probing.page.sections import place_of
from probing.plots.save import find_table
from probing.result_tables import read_result

Draw = Callable[[pd.DataFrame], Figure]


@dataclass(frozen=True)
class Drawn:
    """A figure to draw.

    Attributes:
        draw: Draws it.
        table: What it is drawn from: the source's table, with what is joined to it for this figure.
        record: The line of provenance beside the same figure drawn before; None if there is none.
    """

    draw: Draw
    table: pd.DataFrame
    record: Mapping[str, Any] | None


@dataclass(frozen=True)
class Source:
    """A table and what is drawn from it.

    Attributes:
        name: Of the table, without a suffix.
        path: Where it was read.
        table: Its rows.
        figures: What is drawn from it, by the figure's name; none if the table has no figure.
    """

    name: str
    path: Path
    table: pd.DataFrame
    figures: Mapping[str, Drawn]


def collect(
    figures: Mapping[str, tuple[str, Draw]],
    results: Path,
    drawn: Path | None = None,
    *,
    join: Callable[[pd.DataFrame, str], pd.DataFrame] | None = None,
) -> list[Source]:
    """Read every table of a folder, in the page's order: those with figures first.

    Args:
        figures: By name, the table that a figure is drawn from and the function that draws it.
        results: Folder of tables, or of figures with their CSV.
        drawn: Folder of figures drawn before, whose lines of provenance are shown; ``results`` too is looked at.
        join: Adds to a table what a figure, given by its name, shows beside it; nothing if None.

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
    folders = [folder for folder in (drawn, results) if folder is not None]
    sources = []
    for name in sorted(paths, key=lambda name: (name not in draws, place_of(name), name)):
        rows = _read(paths[name])
        shown = {
            figure: Drawn(draw, rows if join is None else join(rows, figure), _record(figure, folders))
            for figure, draw in draws.get(name, {}).items()
        }
        sources.append(Source(name, paths[name], rows, shown))
    return sources


def _read(path: Path) -> pd.DataFrame:
    try:
        return read_result(path, "the command that wrote it")
    except UserError as error:
        raise UserError(f"{path} cannot be read as a table; make it again, or take it out of the folder.") from error


def _record(figure: str, folders: Sequence[Path]) -> Mapping[str, Any] | None:
    path = next((path for folder in folders if (path := folder / f"{figure}.json").is_file()), None)
    if path is None:
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{path} is no line of provenance; run python -m probing.figures again.")
    return record
