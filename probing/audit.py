"""Find what would invalidate a measurement on preference data: ``python -m probing.audit --data hpdv3``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from probing.commands import FAILED, OK, check_output_folder, run_command
from probing.data_options import DataOptions
from probing.errors import UserError
from probing.options import OptionsParser
from probing.preferences import BENCHMARKS
from probing.preferences.audit import audit
from probing.preferences.audit.duplicates import NEAR_BITS
from probing.preferences.audit.run import LEAST_SIDE
from probing.preferences.audit.scan import WORKERS


@dataclass(frozen=True)
class AuditOptions:
    """Options of the command.

    Attributes:
        data: Pairs and pictures.
        split: Splits of the data, of train, validation and test; default: all.
        no_images: Check the tables only, and open no picture.
        workers: Threads that open pictures.
        least_side: Report pictures with a shorter side, in pixels.
        near_bits: Largest number of different bits, of 64, between the perceptual hashes of near duplicates.
        seed: Seed of the folds that measure shortcuts.
        output: Folder of the report; default: cache/audits/DATA.

    Raises:
        UserError: Fewer than one worker, or bits outside the range.
    """

    data: DataOptions = field(default_factory=lambda: DataOptions(leaks="keep"))
    split: tuple[str, ...] | None = None
    no_images: bool = False
    workers: int = WORKERS
    least_side: int = LEAST_SIDE
    near_bits: int = NEAR_BITS
    seed: int = 0
    output: Path | None = None


PARSER = OptionsParser("probing.audit", AuditOptions, f"{__doc__} The exit status is 1 when a split leaks.")


def run(options: AuditOptions) -> int:
    if options.workers < 1:
        raise UserError(f"--workers must be at least 1, got {options.workers}.")
    if not 0 <= options.near_bits <= NEAR_BITS:
        raise UserError(f"--near-bits is 0 … {NEAR_BITS}, got {options.near_bits}.")
    name = options.data.data
    folder = options.output or Path("cache") / "audits" / Path(name).stem
    check_output_folder(folder)
    data = options.data.load(options.split)
    result = audit(
        data,
        images=not options.no_images,
        workers=options.workers,
        least_side=options.least_side,
        near_bits=options.near_bits,
        sides_randomized=name not in BENCHMARKS or BENCHMARKS[name].randomize_sides,
        seed=options.seed,
    )
    print(result.summary())
    print(f"Report:   {result.write(folder)}\nCases:    {folder}/*.csv")
    return FAILED if result.leaks else OK


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, PARSER, argv)


if __name__ == "__main__":
    raise SystemExit(main())
