"""Measure an experiment on feature stores or a model: ``python -m probing.measure EXPERIMENT``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from probing.analysis.engine import Context, Model, Recipe, Run, Sites
from probing.api.measuring import measure_context, open_stores
from probing.backbones.tuning import UNCHANGED, Tuning, plain_name
from probing.cluster import Engine
from probing.commands import run_command
from probing.data_options import DataOptions, SplitOptions
from probing.errors import UserError
from probing.experiments import EXPERIMENTS, Experiment
from probing.options import Verb, VerbsParser
from probing.preferences import PreferenceData


@dataclass(frozen=True)
class StoreOptions:
    """Features.

    Attributes:
        store: Feature store; repeat the option for several.
    """

    store: tuple[Path, ...]


@dataclass(frozen=True)
class ModelOptions:
    """A backbone.

    Attributes:
        model: Registry name, or a diffusers pipeline folder; default: the store's model.
        tuning: Weights that change its transformer.
        device: Device of the forwards: auto, cpu, cuda, cuda:1, mps.
        compute_dtype: Type of weights and forwards; auto: bfloat16 on an accelerator, float32 on a CPU.
    """

    model: str | None = None
    tuning: Tuning = UNCHANGED
    device: str = "auto"
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"


@dataclass(frozen=True)
class SplitOption:
    """Which items.

    Attributes:
        split: Split of the data whose items are used: train, validation or test; their choices are not.
    """

    split: str | None = "train"


@dataclass(frozen=True)
class RunOptions:
    """How to run, and where results go.

    Attributes:
        facets: Facets of the pairs; default: all.
        seed: Seed of the bootstrap, of the split and of whatever is drawn.
        workers: Fits at once.
        memory: Memory of all fits together, in GiB; logistic fits that need more read their features from the disk.
            Default: half of this machine's.
        engine: What runs the fits: threads of this machine, or ray: a task of one core a site, on the cluster of
            RAY_ADDRESS.
        output: Folder of the tables.
        keep: Leave tables that were made from the same inputs and options by this version; else print what differs.
        overwrite: Replace tables of another model or store.
        dry_run: Print the plan and stop.
    """

    facets: tuple[str, ...] | None = None
    seed: int = 0
    workers: int = 1
    memory: float | None = None
    engine: Engine = "local"
    output: Path = Path("cache/results")
    keep: bool = False
    overwrite: bool = False
    dry_run: bool = False


def options_of(experiment: Experiment) -> type:
    """Make the dataclass of an experiment's options."""
    parts: list[tuple[str, type, Any]] = []
    if "stores" in experiment.inputs:
        parts.append(("stores", StoreOptions, field()))
    if fields(experiment.settings_class):
        parts.append(("settings", experiment.settings_class, field()))
    if "model" in experiment.inputs:
        parts.append(("model", ModelOptions, field(default_factory=ModelOptions)))
    else:
        parts.append(("sites", Sites, field(default_factory=Sites)))
        parts.append(("recipe", Recipe, field(default_factory=Recipe)))
    if experiment.opens_pictures:
        limit = 256 if "stores" not in experiment.inputs else None
        parts.append(("data", DataOptions, field(default_factory=lambda: DataOptions(limit=limit))))
    if "stores" in experiment.inputs:
        parts.append(("split", SplitOptions, field(default_factory=SplitOptions)))
    else:
        parts.append(("split", SplitOption, field(default_factory=SplitOption)))
    parts.append(("run", RunOptions, field(default_factory=RunOptions)))
    return make_dataclass(f"{experiment.settings}Options", parts, frozen=True)


def run(experiment: Experiment, options: Any) -> None:
    """Measure, write the tables and print a summary."""
    context = context_of(experiment, options)
    settings = settings_of(experiment, options)
    describe = experiment.hook("describe")
    if describe is not None:
        print(describe(context, settings), f"{'output':>9}  {options.run.output}", sep="\n", flush=True)
    if options.run.dry_run:
        if describe is None:
            print(f"{experiment.name}: {', '.join(map(str, options.stores.store))}; output {options.run.output}")
        return
    result = measure_context(
        experiment,
        context,
        settings,
        output=options.run.output,
        keep=options.run.keep,
        overwrite=options.run.overwrite,
        report=print,
    )
    for line in result.summary:
        print(f"  {line}")
    print(
        f"Tables:   {', '.join(f'{name}.parquet' for name in result.tables)} in {options.run.output}\n"
        f"Next:     python -m probing.figures --results {options.run.output}"
    )


def settings_of(experiment: Experiment, options: Any) -> Any:
    """Return the experiment's settings; those of an experiment without any are empty."""
    return getattr(options, "settings", None) or experiment.settings_class()


def context_of(experiment: Experiment, options: Any) -> Context:
    """Open and check the inputs that the options select.

    Raises:
        UserError: A store, model or data set that cannot be used.
    """
    stores = open_stores(list(options.stores.store)) if "stores" in experiment.inputs else ()
    if "stores" in experiment.inputs and not stores:
        raise UserError(f"Give --store, a {experiment.stores}; python -m probing.extract makes one.")
    pairs = options.split.split(stores[0].read_pairs(), seed=options.run.seed) if stores else pd.DataFrame()  # type: ignore[attr-defined]
    return Context(
        stores=stores,
        pairs=pairs,
        sites=getattr(options, "sites", Sites()),
        facets=options.run.facets,
        recipe=getattr(options, "recipe", Recipe()),
        run=Run(
            seed=options.run.seed, workers=options.run.workers, memory=options.run.memory, engine=options.run.engine
        ),
        model=_model(options.model, stores) if "model" in experiment.inputs else None,
        data=_data(experiment, options),
        split=None if stores else options.split.split,
    )


def _model(options: ModelOptions, stores: Sequence[Any]) -> Model:
    from probing.backbones import pick_compute_dtype, pick_device, resolve

    name = options.model
    if name is None and not stores:
        raise UserError("Give --model, a registry name or a diffusers pipeline folder.")
    if name is None:
        name = plain_name(str(stores[0].attributes["model"]), options.tuning)
    device = pick_device(options.device)
    return Model(resolve(name, options.tuning), device, pick_compute_dtype(options.compute_dtype, device))


def _data(experiment: Experiment, options: Any) -> PreferenceData | None:
    if "data" in experiment.inputs or getattr(settings_of(experiment, options), "image_stats", False):
        return options.data.load(None if "stores" in experiment.inputs else options.split.split)
    return None


PARSER = VerbsParser(
    "probing.measure",
    {
        name: Verb(experiment.question, partial(options_of, experiment), partial(run, experiment))
        for name, experiment in EXPERIMENTS.items()
    },
    __doc__,
    metavar="EXPERIMENT",
)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda call: call(), PARSER, argv, resumes=True)


if __name__ == "__main__":
    raise SystemExit(main())
