"""Draw every figure again from its table: ``python -m probing.figures``."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from probing.commands import run_command
from probing.errors import UserError
from probing.plots import figure_comparisons, figure_reward_curves, read_table, save_figure

FIGURES: dict[str, tuple[str, Callable[[pd.DataFrame], Figure]]] = {
    "reward_curves": ("reward_curve", figure_reward_curves),
    "comparisons": ("comparisons", figure_comparisons),
}
"""By name: the table that a figure is drawn from, and the function that draws it."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m probing.figures", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--results", type=Path, default=Path("cache/results"), help="folder of tables, or of figures with their CSV")
    add("--output", type=Path, default=Path("figures"), help="folder of the figures")
    return parser


def run(arguments: argparse.Namespace) -> None:
    options = ["--results", str(arguments.results), "--output", str(arguments.output)]
    command = f"python -m probing.figures {shlex.join(options)}"
    for name, (source, draw) in FIGURES.items():
        path = _find(arguments.results, source, name)
        table = read_table(path)
        provenance = {"command": command, "table": path.name}
        written = save_figure(draw(table), table, arguments.output, name, provenance=provenance)
        print(f"{name}: {', '.join(path.name for path in written)} in {arguments.output}")


def _find(results: Path, table: str, figure: str) -> Path:
    candidates = [results / f"{table}.parquet", results / f"{figure}.csv"]
    for path in candidates:
        if path.is_file():
            return path
    raise UserError(
        f"{results} has neither {' nor '.join(p.name for p in candidates)}; run python -m probing.fit first."
    )


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, build_parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
