"""Write the tables of a study, and the figures that the registry draws from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from probing.experiments import FIGURES, resolve
from probing.plots import save_figure
from probing.table_files import write_csv


def save_study(tables: Mapping[str, pd.DataFrame], output: Path, command: str) -> str:
    """Save each table, beside its figure if it has one.

    Args:
        tables: By name; a figure has the name of its table.
        output: Folder of the figures and tables.
        command: The command that measured them.

    Returns:
        A line that names what was written.
    """
    drawn = {name: resolve(FIGURES[name].draw) for name in tables if name in FIGURES}
    for name, table in tables.items():
        if name in drawn:
            provenance = {"command": command, "data": "testbed"}
            save_figure(drawn[name](table), table, output, name, provenance=provenance)
        else:
            write_csv(output / f"{name}.csv", table)
    others = ", ".join(f"{name}.csv" for name in tables if name not in drawn)
    return f"Figures: {', '.join(drawn)}; tables: {others}; in {output}"
