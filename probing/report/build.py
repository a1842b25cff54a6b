"""The page: every section's figures, statements, provenance and table, put into the template."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from probing.plots import NothingToDraw
from probing.report.drawing import Picture, data_uri, draw_picture
from probing.report.findings import Statement, best_cells, statements
from probing.report.grid import Grid, csv_of, preview
from probing.report.provenance import facts, figure_origins, stores, versions
from probing.report.sections import QUESTION, TITLE, Section, heading
from probing.report.sources import TableSource

_HERE = Path(__file__).parent
_MAX_CSV_BYTES = 1_000_000
_MAX_TOTAL_CSV_BYTES = 8_000_000
_MAX_HEADLINES = 8
_MAX_CELLS = 400_000
"""A table with more cells is not written as CSV, neither for its hash nor for download."""
_ABOUT = ("model", "data", "split", "facet", "sigma", "probe", "control", "n_pairs", "n_prompts")


@dataclass(frozen=True)
class Part:
    """A section of the page, ready for the template.

    Attributes:
        source: The table.
        section: Its heading and question.
        pictures: The table's figures.
        left_out: Figures with nothing to show, and the reason.
        statements: Results in words.
        facts: Models, data, seeds and counts of the rows.
        stores: Feature stores behind the rows.
        hash: SHA-256 of the table's CSV; None if the table is too large.
        origins: By figure, the command that drew it.
        preview: First rows.
        csv: The whole table as a data URI; empty if it is too large.
    """

    source: TableSource
    section: Section
    pictures: Sequence[Picture]
    left_out: Sequence[tuple[str, str]]
    statements: Sequence[Statement]
    facts: Sequence[tuple[str, str]]
    stores: Grid | None
    hash: str | None
    origins: Sequence[tuple[str, str]]
    preview: Grid
    csv: str

    @property
    def anchor(self) -> str:
        """Target of links within the page."""
        return re.sub(r"[^\w-]", "-", self.source.name)

    @property
    def headlines(self) -> list[Statement]:
        """Statements for the top of the page: the overall ones, unless there are too many."""
        overall = [statement for statement in self.statements if statement.overall]
        return overall if len(overall) <= _MAX_HEADLINES else []


def build_page(sources: Sequence[TableSource], *, command: str) -> str:
    """Make the page; the same tables give the same text.

    Args:
        sources: Result of :func:`probing.report.collect`.
        command: The command that makes the page and its figures.

    Raises:
        UserError: A table does not hold what its figure shows.
    """
    tables = {source.name: source.table for source in sources}
    budget = _MAX_TOTAL_CSV_BYTES
    parts = []
    for source in sources:
        parts.append(_part(source, command, budget))
        budget -= len(parts[-1].csv)
    drawn = [source.table for source in sources if source.figures]
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "sort.js"))
    return _template().render(
        title=TITLE,
        question=QUESTION,
        about=facts(pd.concat([table[[name for name in _ABOUT if name in table]] for table in drawn])),
        best=best_cells(tables),
        parts=[part for part in parts if part.pictures or part.left_out],
        further=[part for part in parts if not (part.pictures or part.left_out)],
        stores=stores(drawn),
        versions=versions(),
        command=command,
        # Both are files of this package and safe to include as they are.
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _part(source: TableSource, command: str, budget: int) -> Part:
    table = source.table
    pictures, left_out = [], []
    for name, inputs in source.figures.items():
        try:
            pictures.append(draw_picture(inputs))
        except NothingToDraw as reason:
            left_out.append((heading(name), str(reason)))
    csv = csv_of(table) if table.size <= _MAX_CELLS else None
    uri = "" if csv is None or len(csv) > _MAX_CSV_BYTES else data_uri("text/csv;charset=utf-8", csv)
    return Part(
        source=source,
        section=source.section,
        pictures=pictures,
        left_out=left_out,
        statements=statements(table),
        facts=facts(table),
        stores=stores([table]),
        hash=None if csv is None else hashlib.sha256(csv).hexdigest(),
        origins=figure_origins(source, command),
        preview=preview(table),
        csv=uri if len(uri) <= budget else "",
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["thousands"] = "{:,}".format
    return environment.get_template("page.html.jinja")
