"""Draw every figure from its table and write the page that shows them: ``python -m probing.figures``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from probing.analysis.marks import mark_curve
from probing.commands import CommandParser, check_output_file, check_output_folder, run_command
from probing.files import write_text
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
from probing.plots.text import missing_characters, missing_line
from probing.report import TableSource, build_page, collect, public_path
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
"""By name: further tables of the same folder that add to a figure's table, and the function that joins them."""


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser("probing.figures", description=__doc__)
    add = parser.add_argument
    add("--results", type=Path, default=Path("cache/results"), help="folder of tables, or of figures with their CSV")
    add("--output", type=Path, default=Path("figures"), help="folder of the figures")
    add("--page", type=Path, help="HTML page of all figures and tables; report.html in --results if not given")
    add("--no-page", action="store_true", help="write no page")
    add(
        "--figures",
        type=Path,
        help="folder of figures drawn before: the page states how, and whether from the same rows",
    )
    return parser


def run(arguments: argparse.Namespace) -> None:
    check_output_folder(arguments.output)
    page = None if arguments.no_page else arguments.page or arguments.results / "report.html"
    if page is not None:
        check_output_file(page, "--page")
    options = {"--results": arguments.results, "--output": arguments.output, "--figures": arguments.figures}
    words = [word for name, path in options.items() if path is not None for word in (name, public_path(path))]
    command = f"python -m probing.figures {shlex.join(words)}"
    with missing_characters() as missing:
        sources = collect(
            FIGURES,
            arguments.results,
            arguments.figures,
            join=lambda table, figure: join_beside(table, arguments.results, figure),
            further=page is not None,
        )
        _save_all(sources, arguments.output, command)
        if page is not None:
            text = build_page(sources, command=command)
            write_text(page, text)
            count = text.count("<figure>")
            print(f"Page: {page} ({count} figures, {len(sources)} tables, {len(text.encode()) / 1e6:.1f} MB)")
    if missing:
        print(missing_line(missing), file=sys.stderr)


def _save_all(sources: Sequence[TableSource], output: Path, command: str) -> None:
    tables = {source.name for source in sources}
    for name, (table, _) in FIGURES.items():
        if table not in tables:
            print(f"{name}: not drawn, there is no {table}.parquet")
    for source in sources:
        for name, inputs in source.figures.items():
            try:
                figure = inputs.figure
            except NothingToDraw as reason:
                print(f"{name}: not drawn, {reason}")
                continue
            provenance = {"command": command, "table": source.path.name}
            written = save_figure(figure, inputs.table, output, name, provenance=provenance)
            print(f"{name}: {', '.join(path.name for path in written)} in {output}")


def join_beside(table: pd.DataFrame, results: Path, name: str) -> pd.DataFrame:
    """Join a figure's table with the further tables of its folder; a figure's own CSV is already joined."""
    if name not in BESIDE:
        return table
    sources, join = BESIDE[name]
    paths = {source: results / f"{source}.parquet" for source in sources}
    beside = {
        source: read_result(path, "the command that wrote it") for source, path in paths.items() if path.is_file()
    }
    return join(table, **beside) if beside else table


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, build_parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
