"""The page itself: every section's figures, statements, provenance and table, put into the template."""

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

from probing.page.drawing import Picture, data_uri, draw_picture
from probing.page.findings import Statement, best_cells, statements
from probing.page.grid import Grid, csv_of, preview
from probing.page.provenance import commands, facts, stores, versions
from probing.page.sections import ASKED, TITLE, Section, in_words, section_of
from probing.page.sources import Source
from probing.plots import NothingToDraw

_HERE = Path(__file__).parent
_MOST_CSV = 1_000_000
_MOST_CSV_TOGETHER = 8_000_000
_MOST_STATEMENTS = 8
_MOST_CELLS = 400_000
"""A table of more is not written as CSV, neither to be hashed nor to be carried."""
_ABOUT = ("model", "data", "split", "facet", "sigma", "probe", "n_pairs", "n_prompts")


@dataclass(frozen=True)
class Part:
    """A section of the page, ready for the template.

    Attributes:
        name: Of the table.
        section: What is asked.
        file: Name of the table's file.
        rows: Of the table.
        columns: Of the table.
        pictures: The table's figures.
        left_out: Figures that have nothing to show, with the reason.
        statements: What the table says in words.
        facts: What the rows are about.
        stores: Feature stores behind the rows.
        hash: SHA-256 of the table's CSV; None where the table is too large to be written as one.
        commands: By figure, what draws it.
        preview: First rows.
        csv: The whole table, as an address; empty where it is too large.
    """

    name: str
    section: Section
    file: str
    rows: int
    columns: int
    pictures: Sequence[Picture]
    left_out: Sequence[tuple[str, str]]
    statements: Sequence[Statement]
    facts: Sequence[tuple[str, str]]
    stores: Grid | None
    hash: str | None
    commands: Sequence[tuple[str, str]]
    preview: Grid
    csv: str

    @property
    def anchor(self) -> str:
        """Where links within the page lead."""
        return re.sub(r"[^\w-]", "-", self.name)

    @property
    def headlines(self) -> list[Statement]:
        """Statements for the top of the page: those about the whole, unless they are too many for a summary."""
        overall = [statement for statement in self.statements if statement.overall]
        return overall if len(overall) <= _MOST_STATEMENTS else []


def build_page(sources: Sequence[Source], *, command: str, redraw: str) -> str:
    """Make the page, the same text for the same tables.

    Args:
        sources: Of :func:`probing.page.collect`.
        command: What made the page.
        redraw: What draws the figures alone.

    Raises:
        UserError: A table does not hold what its figure shows.
    """
    tables = {source.name: source.table for source in sources}
    left = _MOST_CSV_TOGETHER
    parts = []
    for source in sources:
        parts.append(_part(source, redraw, left))
        left -= len(parts[-1].csv)
    drawn = [source.table for source in sources if source.figures]
    style, script = (_text(name) for name in ("page.css", "sort.js"))
    return _template().render(
        title=TITLE,
        asked=ASKED,
        about=facts(pd.concat([table[[name for name in _ABOUT if name in table]] for table in drawn])),
        best=best_cells(tables),
        parts=[part for part in parts if part.pictures or part.left_out],
        further=[part for part in parts if not (part.pictures or part.left_out)],
        stores=stores(drawn),
        versions=versions(),
        command=command,
        # Both are files of this package: they may stand in the page as they are.
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _part(source: Source, redraw: str, left: int) -> Part:
    table = source.table
    pictures, missing = [], []
    for name, drawn in source.figures.items():
        try:
            pictures.append(draw_picture(name, drawn))
        except NothingToDraw as reason:
            missing.append((in_words(name), str(reason)))
    csv = csv_of(table) if table.size <= _MOST_CELLS else None
    table_hash = None if csv is None else hashlib.sha256(csv).hexdigest()
    carried = "" if csv is None or len(csv) > _MOST_CSV else data_uri("text/csv;charset=utf-8", csv)
    return Part(
        name=source.name,
        section=section_of(source.name),
        file=source.path.name,
        rows=len(table),
        columns=len(table.columns),
        pictures=pictures,
        left_out=missing,
        statements=statements(table),
        facts=facts(table),
        stores=stores([table]),
        hash=table_hash,
        commands=commands(source, redraw),
        preview=preview(table),
        csv=carried if len(carried) <= left else "",
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


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
