"""Run everything on the testbed, from weights to figures: ``python -m probing.reproduce``.

Each step is a command that can be run by itself; it is printed before it runs, and what is done is not done again.
"""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from probing import extract, figures, fit
from probing.commands import run_command
from probing.errors import UserError

MODEL = "testbed-xs"
SIGMAS = "0.005,0.3,0.6"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m probing.reproduce", description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="stores and tables (default: %(default)s)")
    parser.add_argument("--figures", type=Path, default=Path("figures"), help="figures (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="at most so many items: a quick look, not the published numbers")
    return parser


def steps(cache: Path, drawn: Path, limit: int | None) -> list[tuple[Callable[[Sequence[str]], int], str, list[str]]]:
    """List the commands of the whole, with the function that runs each."""
    trained, fresh = str(cache / f"{MODEL}.zarr"), str(cache / f"{MODEL}-random-init.zarr")
    tables = str(cache / "results")
    common = ["--model", MODEL, "--sigmas", SIGMAS, "--streams", "image,text", "--batch-size", "32"]
    common += ["--limit", str(limit)] if limit else []
    return [
        (extract.main, "probing.extract", [*common, "--output", trained]),
        (extract.main, "probing.extract", [*common, "--random-init", "--output", fresh]),
        (fit.main, "probing.fit", ["--store", trained, "--random-init-store", fresh, "--output", tables]),
        (figures.main, "probing.figures", ["--results", tables, "--output", str(drawn)]),
    ]


def run(arguments: argparse.Namespace) -> None:
    began = time.monotonic()
    for main_of, module, options in steps(arguments.cache, arguments.figures, arguments.limit):
        print(f"\n$ python -m {module} {shlex.join(options)}", flush=True)
        if status := main_of(options):
            raise UserError(f"python -m {module} ended with status {status}; the steps before it are done and kept.")
    print(f"\nAll done in {(time.monotonic() - began) / 60:.1f} minutes. Figures: {arguments.figures}")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, build_parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
