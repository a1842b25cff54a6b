"""Put every figure, every table and their provenance into one page: ``python -m probing.report --results DIR``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from probing.commands import CommandParser, check_output_file, run_command
from probing.figures import FIGURES, join_beside
from probing.page import build_page, collect, public_path, write_page
from probing.plots.text import missing_characters, missing_line


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser("probing.report", description=__doc__)
    add = parser.add_argument
    add("--results", type=Path, default=Path("cache/results"), help="folder of tables, or of figures with their CSV")
    add("--figures", type=Path, help="folder of figures drawn before: their lines of provenance are shown")
    add("--output", type=Path, default=Path("report.html"), help="the page")
    return parser


def run(arguments: argparse.Namespace) -> None:
    if not arguments.output.is_dir():
        check_output_file(arguments.output)
    sources = collect(
        FIGURES,
        arguments.results,
        arguments.figures,
        join=lambda table, figure: join_beside(table, arguments.results, figure),
    )
    options = {"--results": arguments.results, "--figures": arguments.figures}
    said = shlex.join(part for name, path in options.items() if path is not None for part in (name, public_path(path)))
    with missing_characters() as missing:
        page = build_page(
            sources,
            command=f"python -m probing.report {said}",
            redraw=f"python -m probing.figures --results {shlex.quote(public_path(arguments.results))}",
        )
    if missing:
        print(missing_line(missing), file=sys.stderr)
    write_page(page, arguments.output)
    drawn = page.count("<figure>")
    print(f"Page: {arguments.output} ({drawn} figures, {len(sources)} tables, {len(page.encode()) / 1e6:.1f} MB)")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, build_parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
