"""Draw every figure again from its table: ``python -m probing.figures``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from probing.analysis.marks import mark_curve
from probing.commands import CommandParser, check_output_folder, run_command
from probing.errors import UserError
from probing.plots import (
    NothingToDraw,
    figure_combinations,
    figure_comparisons,
    figure_controls,
    figure_depth_curves,
    figure_image_similarity,
    figure_noise,
    figure_noise_draws,
    figure_reward_curves,
    figure_scaling,
    figure_stage_similarity,
    figure_token_maps,
    figure_trajectory_similarity,
    save_figure,
)
from probing.plots.save import draw_figure, find_table
from probing.plots.text import missing_characters, missing_line
from probing.result_tables import read_result

FIGURES: dict[str, tuple[str, Callable[[pd.DataFrame], Figure]]] = {
    "reward_curves": ("reward_curve", figure_reward_curves),
    "comparisons": ("comparisons", figure_comparisons),
    "image_similarity": ("similarity", figure_image_similarity),
    "trajectory_similarity": ("trajectory_similarity", figure_trajectory_similarity),
    "stage_similarity": ("stage_similarity", figure_stage_similarity),
    "token_maps": ("token_maps", figure_token_maps),
    "combinations": ("combinations", figure_combinations),
    "noise": ("noise", figure_noise),
    "noise_draws": ("noise", figure_noise_draws),
    "scaling": ("scaling", figure_scaling),
    "depth_curves": ("scaling", figure_depth_curves),
    "controls": ("controls", figure_controls),
}
"""By name: the table that a figure is drawn from, and the function that draws it."""

BESIDE: dict[str, tuple[tuple[str, ...], Callable[..., pd.DataFrame]]] = {
    "reward_curves": (("measures", "stages"), mark_curve)
}
"""By name: tables that add to a figure's own where they are there, and the function that joins them."""


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser("probing.figures", description=__doc__)
    add = parser.add_argument
    add("--results", type=Path, default=Path("cache/results"), help="folder of tables, or of figures with their CSV")
    add("--output", type=Path, default=Path("figures"), help="folder of the figures")
    return parser


def run(arguments: argparse.Namespace) -> None:
    check_output_folder(arguments.output)
    options = ["--results", str(arguments.results), "--output", str(arguments.output)]
    command = f"python -m probing.figures {shlex.join(options)}"
    with missing_characters() as missing:
        drawn = _draw_all(arguments, command)
    if missing:
        print(missing_line(missing), file=sys.stderr)
    if not drawn:
        raise UserError(
            f"{arguments.results} has no table that a figure is drawn from, neither of "
            f"{', '.join(sorted({f'{source}.parquet' for source, _ in FIGURES.values()}))} nor a figure's CSV; "
            f"run python -m probing.fit first."
        )


def _draw_all(arguments: argparse.Namespace, command: str) -> int:
    drawn = 0
    for name, (source, draw) in FIGURES.items():
        path = find_table(arguments.results, source, name)
        if path is None:
            print(f"{name}: not drawn, for there is no {source}.parquet")
            continue
        table = join_beside(read_result(path, "the command that wrote it"), arguments.results, name)
        provenance = {"command": command, "table": path.name}
        try:
            figure = draw_figure(name, draw, table)
        except NothingToDraw as reason:
            print(f"{name}: left out, {reason}")
            continue
        written = save_figure(figure, table, arguments.output, name, provenance=provenance)
        print(f"{name}: {', '.join(path.name for path in written)} in {arguments.output}")
        drawn += 1
    return drawn


def join_beside(table: pd.DataFrame, results: Path, name: str) -> pd.DataFrame:
    """Add what lies beside a figure's table; a figure's own CSV has it already."""
    if name not in BESIDE:
        return table
    sources, join = BESIDE[name]
    others = {source: results / f"{source}.parquet" for source in sources}
    there = {
        source: read_result(path, "the command that wrote it") for source, path in others.items() if path.is_file()
    }
    return join(table, **there) if there else table


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, build_parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
