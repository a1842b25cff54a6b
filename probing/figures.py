"""Draw every figure from its table and write the page that shows them: ``python -m probing.figures``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from probing.api.figures import draw_figures
from probing.commands import run_command
from probing.options import OptionsParser


@dataclass(frozen=True)
class FiguresOptions:
    """Options of the command.

    Attributes:
        results: Folder of tables, or of figures with their CSV.
        output: Folder of the figures.
        page: HTML page of all figures and tables; default: report.html in --results.
        no_page: Write no page.
        figures: Folder of figures drawn before: the page states how, and whether from the same rows.
    """

    results: Path = Path("cache/results")
    output: Path = Path("figures")
    page: Path | None = None
    no_page: bool = False
    figures: Path | None = None


PARSER = OptionsParser("probing.figures", FiguresOptions, __doc__)


def run(options: FiguresOptions) -> None:
    page = options.page or not options.no_page
    drawn = draw_figures(options.results, options.output, page=page, earlier=options.figures, report=print)
    if drawn.note:
        print(drawn.note, file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, PARSER, argv)


if __name__ == "__main__":
    raise SystemExit(main())
