"""Draw every figure from its table, and the page that shows them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from probing.api.result import joined
from probing.commands import check_output_file, check_output_folder
from probing.experiments import EXPERIMENTS, FIGURES, STUDIES, experiments_and_studies, resolve
from probing.files import write_text
from probing.plots import NothingToDraw, save_figure
from probing.plots.text import missing_characters, missing_line
from probing.report import FigureInput, Section, TableSource, build_page, collect, public_path
from probing.result_tables import read_result

_DRAW = "python -m probing.figures"


@dataclass(frozen=True)
class Drawn:
    """What was drawn.

    Attributes:
        figures: Paths of each figure's files.
        left_out: Why a figure was not drawn.
        page: Path of the page; None if none was written.
        note: A line about characters that no font has; empty if there are none.
    """

    figures: Mapping[str, Sequence[Path]]
    left_out: Mapping[str, str]
    page: Path | None
    note: str


def draw_figures(
    results: str | Path = "cache/results",
    output: str | Path = "figures",
    *,
    page: str | Path | bool = True,
    earlier: str | Path | None = None,
    report: Callable[[str], object] = lambda line: None,
) -> Drawn:
    """Draw every figure whose table is in a folder, and a page of all figures and tables.

    Args:
        results: Folder of tables, or of figures with their CSV.
        output: Folder of the figures: PNG, PDF, CSV and a line of provenance each.
        page: Path of the page; True is ``report.html`` in ``results``, False none.
        earlier: Folder of figures drawn before: the page states how, and whether from the same rows.
        report: Receives a line about each figure and about the page.

    Raises:
        UserError: There is no table, one does not hold what its figure shows, or a folder cannot be written.
    """
    results, output = Path(results), Path(output)
    check_output_folder(output)
    path = _page_path(page, results)
    if path is not None:
        check_output_file(path, "--page")
    command = _command(results, output, earlier)
    with missing_characters() as missing:
        sources = collect(
            {name: (figure.table, resolve(figure.draw)) for name, figure in FIGURES.items()},
            results,
            None if earlier is None else Path(earlier),
            sections=sections(),
            join=lambda table, figure: join_beside(table, results, figure),
            further=path is not None,
        )
        figures, left_out = _save(sources, output, command, report)
        if path is not None:
            text = build_page(sources, command=command)
            write_text(path, text)
            size = len(text.encode()) / 1e6
            report(f"Page: {path} ({text.count('<figure>')} figures, {len(sources)} tables, {size:.1f} MB)")
    return Drawn(figures, left_out, path, missing_line(missing) if missing else "")


def sections() -> dict[str, Section]:
    """Return the heading and question of every table, in the order of the page."""
    return {
        table.name: Section(table.title, table.question)
        for source in experiments_and_studies()
        for table in source.tables
    }


def join_beside(table: pd.DataFrame, results: Path, figure: str) -> pd.DataFrame:
    """Join a figure's table with the further tables of its folder; a figure's own CSV is already joined."""
    spec = FIGURES[figure]
    paths = {name: results / f"{name}.parquet" for name in spec.beside}
    beside = {name: read_result(path, "the command that wrote it") for name, path in paths.items() if path.is_file()}
    return joined(spec, table, beside)


def _page_path(page: str | Path | bool, results: Path) -> Path | None:
    if isinstance(page, bool):
        return results / "report.html" if page else None
    return Path(page)


def _command(results: Path, output: Path, earlier: str | Path | None) -> str:
    options = {"--results": results, "--output": output, "--figures": earlier}
    words = [word for name, path in options.items() if path is not None for word in (name, public_path(Path(path)))]
    return f"{_DRAW} {shlex.join(words)}"


def _save(
    sources: Sequence[TableSource], output: Path, command: str, report: Callable[[str], object]
) -> tuple[dict[str, list[Path]], dict[str, str]]:
    tables = {source.name for source in sources}
    figures: dict[str, list[Path]] = {}
    left_out: dict[str, str] = {}
    for source in sources:
        for name, inputs in source.figures.items():
            try:
                figure = inputs.figure
            except NothingToDraw as empty:
                left_out[name] = str(empty)
                continue
            provenance = {"command": command, "table": source.path.name, **_measured_by(source, inputs)}
            figures[name] = save_figure(figure, inputs.table, output, name, provenance=provenance)
            report(f"{name}: {', '.join(path.name for path in figures[name])} in {output}")
    for name, reason in left_out.items():
        report(f"{name}: not drawn, {reason}")
    measurable = (figure for experiment in EXPERIMENTS.values() for figure in experiment.figures)
    unmeasured = {figure.name: figure.table for figure in measurable if figure.table not in tables}
    if unmeasured:
        report(f"Not drawn, since their experiments have no tables here: {', '.join(unmeasured)}")
    left_out |= {name: f"there is no {table}.parquet" for name, table in unmeasured.items()}
    of_studies = {figure.name: study.command for study in STUDIES for figure in study.figures}
    left_out |= {name: f"python -m {by} makes it" for name, by in of_studies.items() if name not in figures | left_out}
    return figures, left_out


def _measured_by(source: TableSource, inputs: FigureInput) -> dict[str, str]:
    """Keep the command that measured a figure's own CSV, from the figure's record."""
    record = inputs.record if source.path.suffix == ".csv" else None
    measured = (record or {}).get("measured_by", (record or {}).get("command", _DRAW))
    return {} if measured.startswith(_DRAW) else {"measured_by": measured}
