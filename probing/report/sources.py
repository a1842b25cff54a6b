"""What the page shows: every table of a results folder, its figures, and the provenance of figures drawn before."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from probing.errors import UserError
from probing.plots.save import draw_figure
from probing.report.sections import Section, heading
from probing.result_tables import read_result

Draw = Callable[[pd.DataFrame], Figure]


@dataclass(frozen=True)
class FigureInput:
    """What a figure is drawn from.

    Attributes:
        name: Name of the figure.
        draw: Function that draws it.
        table: The source's table, joined with the tables beside it.
        record: Provenance of the same figure drawn before; None if there is none.
    """

    name: str
    draw: Draw
    table: pd.DataFrame
    record: Mapping[str, Any] | None

    @cached_property
    def figure(self) -> Figure:
        """The figure, drawn once.

        Raises:
            NothingToDraw: The table was measured with less than the figure shows.
            UserError: The table does not hold what the figure shows.
        """
        return draw_figure(self.name, self.draw, self.table)


@dataclass(frozen=True)
class TableSource:
    """A table and the figures drawn from it.

    Attributes:
        name: Name of the table, without a suffix.
        path: File that it was read from.
        table: Its rows.
        figures: Its figures by name; empty if the table has none.
        section: Its heading and question.
    """

    name: str
    path: Path
    table: pd.DataFrame
    figures: Mapping[str, FigureInput]
    section: Section


def collect(
    figures: Mapping[str, tuple[str, Draw]],
    results: Path,
    drawn: Path | None = None,
    *,
    sections: Mapping[str, Section] | None = None,
    join: Callable[[pd.DataFrame, str], pd.DataFrame] | None = None,
    further: bool = True,
) -> list[TableSource]:
    """Read every table of a folder, in the page's order: those with figures first.

    Args:
        figures: By name, the table that a figure is drawn from and the function that draws it.
        results: Folder of tables, or of figures with their CSV.
        drawn: Folder of figures drawn before, whose provenance is read; ``results`` is searched too.
        sections: Heading and question of each table, in the page's order; other tables come after these.
        join: Adds the tables beside a figure's table, given the figure's name; nothing is added if None.
        further: Whether to read tables without a figure too.

    Raises:
        UserError: A folder is missing, no table has a figure, or a table cannot be read.
    """
    for folder in (results, drawn):
        if folder is not None and not folder.is_dir():
            raise UserError(
                f"There is no folder {folder}; run python -m probing.measure first, or give the right folder."
            )
    paths: dict[str, Path] = {}
    draws: dict[str, dict[str, Draw]] = {}
    for figure, (table, draw) in figures.items():
        candidates = (results / f"{table}.parquet", results / f"{figure}.csv")
        path = paths.get(table) or next((path for path in candidates if path.is_file()), None)
        if path is not None:
            paths[table] = path
            draws.setdefault(table, {})[figure] = draw
    if not paths:
        names = ", ".join(dict.fromkeys(f"{table}.parquet" for table, _ in figures.values()))
        raise UserError(f"{results} has none of {names}, nor a figure's CSV; run python -m probing.measure first.")
    if further:
        for path in sorted(results.glob("*.parquet")):
            paths.setdefault(path.stem, path)
    order = list(sections or {})

    def position(name: str) -> int:
        return order.index(name) if name in order else len(order)

    folders = [folder for folder in (drawn, results) if folder is not None]
    sources = []
    for name in sorted(paths, key=lambda name: (name not in draws, position(name), name)):
        rows = _read(paths[name])
        inputs = {
            figure: FigureInput(
                figure, draw, rows if join is None else join(rows, figure), _read_record(figure, folders)
            )
            for figure, draw in draws.get(name, {}).items()
        }
        section = (sections or {}).get(name) or Section(heading(name), "")
        sources.append(TableSource(name, paths[name], rows, inputs, section))
    return sources


def _read(path: Path) -> pd.DataFrame:
    try:
        return read_result(path, "the command that wrote it")
    except UserError as error:
        raise UserError(f"{path} cannot be read as a table; make it again, or take it out of the folder.") from error


def _read_record(figure: str, folders: Sequence[Path]) -> Mapping[str, Any] | None:
    path = next((path for folder in folders if (path := folder / f"{figure}.json").is_file()), None)
    if path is None:
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise UserError(f"{path} is no line of provenance; delete it, and run python -m probing.figures again.")
    return record
