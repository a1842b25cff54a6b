"""Run everything on the testbed, from weights to figures: ``python -m probing.reproduce``.

Each step is a command that can be run by itself; it is printed before it runs. What is extracted is not extracted
again; tables and figures are made anew.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from probing.backbones import model_names
from probing.commands import OK, CommandParser, run_command

MODEL = "testbed-s"
SIGMAS = "0.005,0.3,0.6"
FEWER_SIGMAS = "0.005,0.6"
"""Of other models' stores: near-clean, and where alignment is read."""
BATCH_SIZE = 32
REPLACING = ("probing.similarity", "probing.fit", "probing.analyse", "probing.tokens")
"""Commands that refuse to replace the tables of another model."""
RIVAL = "testbed-rival"
"""As tables and figures call the testbed's discriminative model, a line in the reward curves."""


class Step(NamedTuple):
    """A command: the module whose ``main`` runs it, and its options."""

    module: str
    options: list[str]


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser("probing.reproduce", description=__doc__)
    parser.add_argument("--model", default=MODEL, help="what all but scaling is measured on")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="stores and tables")
    parser.add_argument("--figures", type=Path, default=Path("figures"), help="figures")
    parser.add_argument("--limit", type=int, help="at most so many items: a quick look, not the published numbers")
    parser.add_argument("--overwrite", action="store_true", help="replace the tables of another model in --cache too")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and run none")
    return parser


def steps(model: str, cache: Path, drawn: Path, limit: int | None, *, overwrite: bool = False) -> list[Step]:
    """List the commands of the whole, in their order."""
    results = str(cache / "results")
    few = ["--limit", str(limit)] if limit else []

    def store(name: str) -> str:
        return str(cache / f"{name}.zarr")

    def extracted(name: str, of: str, *options: str, sigmas: str = FEWER_SIGMAS, streams: str = "image,text") -> Step:
        common = ["--model", of, "--sigmas", sigmas, "--streams", streams, "--batch-size", str(BATCH_SIZE), *few]
        return Step("probing.extract", [*common, *options, "--output", store(name)])

    others = [name for name in model_names() if name.startswith("testbed-") and name != model]
    fresh, redrawn, shared = f"{model}-random-init", f"{model}-noise-1", f"{model}-shared-noise"
    foreign, empty = f"{model}-foreign", f"{model}-empty"
    # Width alone may make features more readable, so every size has its random-initialised control. Names of further
    # seeds and of weights along the way have more parts than those of sizes.
    sizes = [name for name in others if name.count("-") == 1]
    stages, rewards = f"{results}/stages.parquet", str(cache / f"{RIVAL}.parquet")
    stores = [
        extracted(model, model, sigmas=SIGMAS),
        extracted(fresh, model, "--random-init", sigmas=SIGMAS),
        extracted(redrawn, model, "--seed", "1", sigmas=SIGMAS, streams="image"),
        extracted(shared, model, "--pair-noise", "shared", sigmas=SIGMAS, streams="image"),
        extracted(foreign, model, "--prompts", "foreign", sigmas=SIGMAS),
        extracted(empty, model, "--prompts", "empty", sigmas=SIGMAS),
        *(extracted(name, name) for name in others),
        *(extracted(f"{name}-random-init", name, "--random-init") for name in sizes),
    ]
    main = ["--store", store(model), "--output", results]
    fewer = ["--sigmas", FEWER_SIGMAS]
    image = ["--streams", "image"]
    analyses = [
        Step(
            "probing.similarity",
            ["--model", model, "--sigmas", SIGMAS, "--limit", "128", "--control", "--output", results],
        ),
        Step("probing.testbed.rival", [*few, "--output", rewards]),
        Step("probing.fit", [*main, "--random-init-store", store(fresh), "--reference", f"{RIVAL}={rewards}"]),
        Step(
            "probing.analyse",
            [
                "combinations",
                *main,
                *fewer,
                *image,
                "--stages",
                stages,
                "--similarity",
                f"{results}/similarity.parquet",
            ],
        ),
        Step("probing.analyse", ["noise", *main, *image, "--store", store(redrawn), "--store", store(shared)]),
        Step(
            "probing.analyse",
            [
                "controls",
                *main,
                "--store",
                store(fresh),
                "--store",
                store(foreign),
                "--store",
                store(empty),
                "--image-stats",
                *few,
            ],
        ),
        Step(
            "probing.analyse",
            [
                "scaling",
                *main,
                *fewer,
                *image,
                "--store",
                store(fresh),
                *(option for name in others for option in ("--store", store(name))),
                *(option for name in sizes for option in ("--store", store(f"{name}-random-init"))),
            ],
        ),
        Step("probing.tokens", ["--store", store(model), "--results", results]),
        Step("probing.figures", ["--results", results, "--output", str(drawn), "--page", str(cache / "report.html")]),
    ]
    if overwrite:
        analyses = [
            Step(module, [*options, "--overwrite"]) if module in REPLACING else Step(module, options)
            for module, options in analyses
        ]
    return [*stores, *analyses]


def run(arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    todo = steps(arguments.model, arguments.cache, arguments.figures, arguments.limit, overwrite=arguments.overwrite)
    for number, step in enumerate(todo, start=1):
        print(f"\n[{number}/{len(todo)}] $ python -m {step.module} {shlex.join(step.options)}", flush=True)
        if arguments.dry_run:
            continue
        if status := importlib.import_module(step.module).main(step.options):
            print(
                f"python -m {step.module} ended with status {status}; the steps before it are done, and what was "
                f"extracted is kept.",
                file=sys.stderr,
            )
            return status
    if arguments.dry_run:
        return OK
    print(
        f"\nAll done in {(time.monotonic() - began) / 60:.1f} minutes. Figures: {arguments.figures}; "
        f"on one page: {arguments.cache / 'report.html'}"
    )
    return OK


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, build_parser(), argv, resumes=True)


if __name__ == "__main__":
    raise SystemExit(main())
