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
from probing.plots import (
    figure_comparisons,
    figure_image_similarity,
    figure_reward_curves,
    figure_stage_similarity,
    figure_token_maps,
    figure_trajectory_similarity,
    read_table,
    save_figure,
)

FIGURES: dict[str, tuple[str, Callable[[pd.DataFrame], Figure]]] = {
    "reward_curves": ("reward_curve", figure_reward_curves),
    "comparisons": ("comparisons", figure_comparisons),
    "image_similarity": ("similarity", figure_image_similarity),
    "trajectory_similarity": ("trajectory_similarity", figure_trajectory_similarity),
    "stage_similarity": ("stage_similarity", figure_stage_similarity),
    "token_maps": ("token_maps", figure_token_maps),
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
    found = {name: _find(arguments.results, source, name) for name, (source, _) in FIGURES.items()}
    if not any(found.values()):
        raise UserError(
            f"{arguments.results} has none of the tables that figures are drawn from; run probing.fit first."
        )
    for name, path in found.items():
        if path is None:
            print(f"{name}: not drawn, for there is no {FIGURES[name][0]}.parquet")
            continue
        table = read_table(path)
        provenance = {"command": command, "table": path.name}
        written = save_figure(FIGURES[name][1](table), table, arguments.output, name, provenance=provenance)
        print(f"{name}: {', '.join(path.name for path in written)} in {arguments.output}")


def _find(results: Path, table: str, figure: str) -> Path | None:
    """Find the table of a figure, as the analysis wrote it or beside the figure; None if it was not made."""
    candidates = [results / f"{table}.parquet", results / f"{figure}.csv"]
    return next((path for path in candidates if path.is_file()), None)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, build_parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
