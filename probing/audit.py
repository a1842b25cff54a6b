"""Find what would invalidate a measurement on preference data: ``python -m probing.audit --data hpdv3``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from probing.commands import FAILED, OK, CommandParser, check_output_folder, run_command, words
from probing.data_options import add_data_options, load_data
from probing.errors import UserError
from probing.preferences import BENCHMARKS
from probing.preferences.audit import audit
from probing.preferences.audit.duplicates import NEAR_BITS
from probing.preferences.audit.run import LEAST_SIDE
from probing.preferences.audit.scan import WORKERS


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser("probing.audit", description=f"{__doc__} The exit status is 1 when a split leaks.")
    add = parser.add_argument
    add_data_options(parser, leaks="keep")
    add("--split", type=words, help="of train, validation, test, separated by commas; all if not given")
    add("--no-images", action="store_true", help="check the tables only, and open no picture")
    add("--workers", type=int, default=WORKERS, help="number of threads that open pictures")
    add("--least-side", type=int, default=LEAST_SIDE, metavar="PIXELS", help="report pictures with a shorter side")
    add(
        "--near-bits",
        type=int,
        choices=range(NEAR_BITS + 1),
        default=NEAR_BITS,
        help="largest number of different bits, of 64, between the perceptual hashes of near duplicates",
    )
    add("--seed", type=int, default=0, help="seed of the folds that measure shortcuts")
    add("--output", type=Path, help="folder of the report; cache/audits/DATA if not given")
    return parser


def run(arguments: argparse.Namespace) -> int:
    if arguments.workers < 1:
        raise UserError(f"--workers must be at least 1, got {arguments.workers}.")
    if arguments.output is not None:
        check_output_folder(arguments.output)
    data = load_data(arguments, split=arguments.split)
    result = audit(
        data,
        images=not arguments.no_images,
        workers=arguments.workers,
        least_side=arguments.least_side,
        near_bits=arguments.near_bits,
        sides_randomized=arguments.data not in BENCHMARKS or BENCHMARKS[arguments.data].randomize_sides,
        seed=arguments.seed,
    )
    folder = arguments.output or Path("cache") / "audits" / data.name
    print(result.summary())
    print(f"Report:   {result.write(folder)}\nCases:    {folder}/*.csv")
    return FAILED if result.leaks else OK


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, build_parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
