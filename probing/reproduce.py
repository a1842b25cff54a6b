"""Run the testbed's experiments from weights to figures: ``python -m probing.reproduce``, and ``--all`` for every one.

Without it, the main result: the reward curve of one model beside its random-initialised control, on half of the
prompts. Each step is a command that can be run by itself; it is printed before it runs. What is extracted is not
extracted again, and ``--all`` goes on from what the main result has; tables and figures are made anew.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import probing
from probing.commands import OK, run_command
from probing.experiments import EXPERIMENTS
from probing.options import OptionsParser

MODEL = "testbed-s"
SIGMAS = "0.005,0.3,0.6"
FEWER_SIGMAS = "0.005,0.6"
"""Near-clean, and where alignment is read: the noise levels of the other models' stores."""
BATCH_SIZE = 32
RANDOM_SEEDS = (0, 1, 2)
"""Seeds of the model's random weights; the other sizes have one draw each."""
MAIN_ITEMS = 6750
"""Items of the main result: every second prompt, so that an interval is 1.4 times as wide as with all."""
RIVAL = "testbed-rival"
"""The testbed's baseline reward model, a reference in the reward curves."""


class Step(NamedTuple):
    """A command: the module whose ``main`` runs it, and its arguments."""

    module: str
    arguments: list[str]


@dataclass(frozen=True)
class ReproduceOptions:
    """Options of the command.

    Attributes:
        all: Every experiment on every model and all items, into ``figures``: what the committed figures show.
        model: The model of every experiment but scaling.
        cache: Folder of stores and tables.
        figures: Folder of figures; default: figures with ``--all``, else main/figures in the cache.
        limit: Largest number of items; default: all with ``--all``, else 6,750, half of them.
        overwrite: Replace the tables of another model in the cache.
        dry_run: Print the commands and run none.
    """

    all: bool = False
    model: str = MODEL
    cache: Path = Path("cache")
    figures: Path | None = None
    limit: int | None = None
    overwrite: bool = False
    dry_run: bool = False


PARSER = OptionsParser("probing.reproduce", ReproduceOptions, __doc__)


def steps(options: ReproduceOptions) -> list[Step]:
    """List the commands in order."""
    return everything(options) if options.all else main_result(options)


def main_result(options: ReproduceOptions) -> list[Step]:
    """List the commands of the main result: curve, controls, page."""
    model, results = options.model, options.cache / "main" / "results"
    names = [model, f"{model}-random-init"]
    limit = ["--limit", str(options.limit or MAIN_ITEMS)]
    # Of three noise levels the two at which quality and alignment are read.
    read = ["--model", model, "--sigmas", FEWER_SIGMAS, "--streams", "image,text", *limit]
    extractions = [_extraction(options, names[0], read), _extraction(options, names[1], [*read, "--random-init"])]
    stores = ["--sigmas", FEWER_SIGMAS, *(part for name in names for part in ("--store", _path(options, name)))]
    return [
        *extractions,
        _measure(options, "reward-curve", stores, results),
        _measure(options, "controls", [*stores, "--image-stats", *limit], results),
        _page(results, options.figures or options.cache / "main" / "figures", options.cache / "main" / "report.html"),
    ]


def everything(options: ReproduceOptions) -> list[Step]:
    """List the commands of every experiment on every model."""
    results, figures = options.cache / "results", options.figures or Path("figures")
    return [*_extractions(options), *_experiments(options), _page(results, figures, options.cache / "report.html")]


def _stores(options: ReproduceOptions) -> dict[str, list[str]]:
    """Map the name of each store to the options of its extraction."""
    model, others, sizes = options.model, _other_models(options.model), _sizes(options.model)
    both, image = ["--streams", "image,text"], ["--streams", "image"]
    all_levels, fewer = ["--sigmas", SIGMAS], ["--sigmas", FEWER_SIGMAS]
    return {
        model: ["--model", model, *all_levels, *both],
        f"{model}-random-init": ["--model", model, *all_levels, *both, "--random-init"],
        # One draw of random weights is no control: the spread over draws is shown.
        **{
            f"{model}-random-init-{seed}": ["--model", model, *all_levels, *both, "--random-init", "--seed", str(seed)]
            for seed in RANDOM_SEEDS[1:]
        },
        f"{model}-noise-1": ["--model", model, *all_levels, *image, "--seed", "1"],
        f"{model}-shared-noise": ["--model", model, *all_levels, *image, "--pair-noise", "shared"],
        f"{model}-foreign": ["--model", model, *all_levels, *both, "--prompts", "foreign"],
        f"{model}-empty": ["--model", model, *all_levels, *both, "--prompts", "empty"],
        **{name: ["--model", name, *fewer, *both] for name in others},
        # Width alone may make features more readable, so every size has its random-initialised control.
        **{f"{name}-random-init": ["--model", name, *fewer, *both, "--random-init"] for name in sizes},
    }


def _other_models(model: str) -> list[str]:
    return [name for name in probing.model_names() if name.startswith("testbed-") and name != model]


def _sizes(model: str) -> list[str]:
    """Return the other sizes; names of further seeds and of checkpoints have more parts."""
    return [name for name in _other_models(model) if name.count("-") == 1]


def _path(options: ReproduceOptions, store: str) -> str:
    return str(options.cache / f"{store}.zarr")


def _limit(options: ReproduceOptions) -> list[str]:
    return ["--limit", str(options.limit)] if options.limit else []


def _extraction(options: ReproduceOptions, name: str, arguments: list[str]) -> Step:
    return Step("probing.extract", [*arguments, "--batch-size", str(BATCH_SIZE), "--output", _path(options, name)])


def _measure(options: ReproduceOptions, experiment: str, arguments: list[str], results: Path) -> Step:
    how = ["--workers", str(os.cpu_count() or 1), *(["--overwrite"] if options.overwrite else [])]
    return Step("probing.measure", [experiment, *arguments, "--output", str(results), *how])


def _page(results: Path, figures: Path, page: Path) -> Step:
    return Step("probing.figures", ["--results", str(results), "--output", str(figures), "--page", str(page)])


def _extractions(options: ReproduceOptions) -> list[Step]:
    limit = _limit(options)
    return [_extraction(options, name, [*arguments, *limit]) for name, arguments in _stores(options).items()]


def _experiments(options: ReproduceOptions) -> list[Step]:
    """List every experiment of the registry; one without an entry here is measured on the model's own store."""
    model, results = options.model, str(options.cache / "results")
    rewards = str(options.cache / f"{RIVAL}.parquet")
    fewer, image = ["--sigmas", FEWER_SIGMAS], ["--streams", "image"]
    controls = {name: f"{model}-{name}" for name in ("random-init", "noise-1", "shared-noise", "foreign", "empty")}
    random_init = [controls["random-init"], *(f"{model}-random-init-{seed}" for seed in RANDOM_SEEDS[1:])]
    sizes = [f"{name}-random-init" for name in _sizes(model)]
    stores = {
        "similarity": [],
        "noise": [model, controls["noise-1"], controls["shared-noise"]],
        "reward-curve": [model, *random_init],
        "controls": [model, *random_init, controls["foreign"], controls["empty"]],
        "scaling": [model, controls["random-init"], *_other_models(model), *sizes],
        "factorial": [model, *_sizes(model)],
        "heat-maps": [model, *random_init],
    }
    tables = ["--stages", f"{results}/stages.parquet", "--similarity", f"{results}/similarity.parquet"]
    arguments = {
        "similarity": ["--model", model, "--sigmas", SIGMAS, "--limit", "128", "--random-init"],
        "reward-curve": ["--references", f"{RIVAL}={rewards}"],
        "combinations": [*fewer, *image, *tables],
        "noise": image,
        # Of the testbed's pairs: how strongly each picture is degraded.
        "controls": ["--image-stats", "--shortcuts", "strength", *_limit(options)],
        "scaling": [*fewer, *image],
        # A network for every cell: the sum of all facets, and the one that needs the prompt.
        "factorial": [*fewer, "--facets", "all,alignment"],
        "token-maps": ["--curve", f"{results}/reward_curve.parquet"],
        "heat-maps": ["--curve", f"{results}/reward_curve.parquet"],
    }
    commands = [Step("probing.testbed.rival", [*_limit(options), "--output", rewards])]
    for name in EXPERIMENTS:
        paths = [part for store in stores.get(name, [model]) for part in ("--store", _path(options, store))]
        commands.append(_measure(options, name, [*paths, *arguments.get(name, [])], options.cache / "results"))
    return commands


def run(options: ReproduceOptions) -> int:
    began = time.monotonic()
    commands = steps(options)
    for number, step in enumerate(commands, start=1):
        command = f"python -m {step.module} {shlex.join(step.arguments)}"
        print(f"\n[{number}/{len(commands)}] $ {command}", flush=True)
        if options.dry_run:
            continue
        if status := importlib.import_module(step.module).main(step.arguments):
            print(
                f"python -m {step.module} ended with status {status}; the steps before it are done, and what was "
                f"extracted is kept.",
                file=sys.stderr,
            )
            return status
    if not options.dry_run:
        (_, arguments) = commands[-1]
        written = dict(zip(arguments[::2], arguments[1::2], strict=True))
        print(
            f"\nAll done in {(time.monotonic() - began) / 60:.1f} minutes. Open {written['--page']}; figures and their "
            f"tables: {written['--output']}; next: "
            + ("notebooks/" if options.all else "notebooks/01_layer_probe.ipynb, or python -m probing.reproduce --all")
        )
    return OK


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, PARSER, argv, resumes=True)


if __name__ == "__main__":
    raise SystemExit(main())
