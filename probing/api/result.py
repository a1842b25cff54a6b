"""The result of an experiment: its tables, statements and figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from probing.errors import UserError
from probing.experiments import EXPERIMENTS, Experiment, FigureSpec, resolve
from probing.report.findings import statements
from probing.result_tables import read_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from probing.analysis.engine import Identity


@dataclass(frozen=True)
class Result:
    """Tables of one experiment.

    Attributes:
        experiment: Name of the experiment.
        tables: Tables by name; the first is the main one.
        identity: What the tables were made from; None if unknown.
        folder: Folder of the tables on disk; None if they were not written.
    """

    experiment: str
    tables: dict[str, pd.DataFrame]
    identity: Identity | None = field(default=None, repr=False)
    folder: Path | None = None

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} ({len(table):,} rows)" for name, table in self.tables.items())
        return f"Result of {self.experiment}: {sizes}"

    @property
    def table(self) -> pd.DataFrame:
        """The main table, one row a measurement."""
        return self.tables[self._spec.table_names[0]]

    @property
    def statements(self) -> list[str]:
        """The sentences of all tables about the whole, each with its facet and site."""
        sentences = [sentence for table in self.tables.values() for sentence in statements(table)]
        return list(dict.fromkeys(sentence.text for sentence in sentences if sentence.overall))

    @property
    def summary(self) -> list[str]:
        """The lines that ``python -m probing.measure`` prints: the experiment's own report, or the statements."""
        report = self._spec.hook("report")
        return self.statements if report is None else report(self.tables)

    @property
    def figures(self) -> list[str]:
        """Names of the figures that :meth:`plot` can draw."""
        return [figure.name for figure in self._spec.figures if figure.table in self.tables]

    def plot(self, figure: str | None = None) -> Figure:
        """Draw a figure of the experiment.

        Args:
            figure: One of :attr:`figures`; the main one if None.

        Raises:
            UserError: There is no figure of this name.
            NothingToDraw: The table was measured with less than the figure shows.
        """
        specs = {spec.name: spec for spec in self._spec.figures if spec.table in self.tables}
        name = next(iter(specs)) if figure is None and specs else figure
        if name not in specs:
            raise UserError(f"{self.experiment} has no figure {name!r}; choose one of {', '.join(specs)}.")
        spec = specs[str(name)]
        return draw(spec, self.tables[spec.table], self.tables)

    def save(self, folder: str | Path) -> Result:
        """Write every table as ``NAME.parquet`` into a folder, with what it was made from.

        Raises:
            UserError: The folder cannot be written.
        """
        from probing.table_files import write_parquet

        folder = Path(folder)
        metadata = None if self.identity is None else self.identity.metadata
        for name, table in self.tables.items():
            write_parquet(folder / f"{name}.parquet", table, metadata)
        return Result(self.experiment, self.tables, self.identity, folder)

    @staticmethod
    def load(folder: str | Path, experiment: str) -> Result:
        """Read the tables of an experiment from a folder.

        Raises:
            UserError: The experiment is unknown, or its main table is missing or damaged.
        """
        from probing.experiments import experiment_of

        folder, spec = Path(folder), experiment_of(experiment)
        made_by = f"python -m probing.measure {experiment}"
        names = [
            name for name in spec.table_names if name == spec.table_names[0] or (folder / f"{name}.parquet").is_file()
        ]
        tables = {name: read_result(folder / f"{name}.parquet", made_by) for name in names}
        return Result(experiment, tables, None, folder)

    @property
    def _spec(self) -> Experiment:
        return EXPERIMENTS[self.experiment]


def draw(spec: FigureSpec, table: pd.DataFrame, beside: dict[str, pd.DataFrame]) -> Figure:
    """Draw a figure from its table and the tables beside it."""
    return resolve(spec.draw)(joined(spec, table, beside))


def joined(spec: FigureSpec, table: pd.DataFrame, beside: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return a figure's rows, with what the tables beside it add; its own CSV has that already."""
    others = {name: beside[name] for name in spec.beside if name in beside}
    needed = bool(spec.join) and (bool(others) or not spec.beside)
    return resolve(spec.join)(table, **others) if needed else table
