"""Measure an experiment: check, measure, keep on disk if asked to."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from probing.analysis.engine import (
    ALL,
    LOGISTIC,
    Context,
    FeatureSource,
    Identity,
    Model,
    Recipe,
    Run,
    Sites,
    identify,
    prune_journal,
)
from probing.api.result import Result
from probing.errors import UserError
from probing.experiments import EXPERIMENTS, Experiment, experiment_of
from probing.paths import is_remote

if TYPE_CHECKING:
    from probing.preferences import PreferenceData

Stores = FeatureSource | str | Path | Sequence[FeatureSource | str | Path]


def measure(
    experiment: str,
    stores: Stores = (),
    pairs: pd.DataFrame | None = None,
    *,
    sites: Sites = ALL,
    facets: Sequence[str] | None = None,
    recipe: Recipe = LOGISTIC,
    run: Run | None = None,
    model: str | Path | Model | None = None,
    data: str | Path | PreferenceData | None = None,
    output: str | Path | None = None,
    keep: bool = False,
    overwrite: bool = False,
    **settings: Any,
) -> Result:
    """Measure an experiment of the registry :mod:`probing.experiments`.

    Args:
        experiment: Its name, such as ``reward-curve``.
        stores: A feature store, its path, or several.
        pairs: Pairs with a split; those of the first store if None.
        sites: Which sites.
        facets: Which facets; all if None.
        recipe: The probe.
        run: Seed, workers, journal, progress.
        model: Registry name or folder, for experiments that run forwards; the store's own model if None.
        data: Data set or file of pairs, for experiments that open pictures; ``testbed`` if None.
        output: Folder to write the tables into; an interrupted measurement continues from there. None writes nothing.
        keep: Return the tables in ``output`` if they were made from the same stores, pairs and options.
        overwrite: Replace the tables of another model or store.
        **settings: The experiment's own settings.

    Raises:
        UserError: A mistake in what was requested, with its fix.
    """
    spec = experiment_of(experiment)
    opened = open_stores(stores)
    if "stores" in spec.inputs and not opened:
        raise UserError(f"{experiment} needs a feature store; make one with probing.extract.")
    pictures = _data(spec, data, settings)
    context = Context(
        stores=opened,
        pairs=_pairs(opened) if pairs is None else pairs,
        sites=sites,
        facets=facets,
        recipe=recipe,
        run=run or Run(),
        model=_model(spec, model, opened),
        data=pictures,
        split=None if opened or pictures is None else _only_split(pictures),
    )
    return measure_context(spec, context, _settings(spec, settings), output=output, keep=keep, overwrite=overwrite)


def measure_context(
    experiment: Experiment,
    context: Context,
    settings: Any,
    *,
    output: str | Path | None = None,
    keep: bool = False,
    overwrite: bool = False,
    report: Callable[[str], object] = lambda line: None,
) -> Result:
    """Measure an experiment from a prepared context.

    Args:
        experiment: The experiment.
        context: Its inputs.
        settings: Its settings.
        output: As for :func:`measure`. Likewise the next two.
        keep: See there.
        overwrite: See there.
        report: Receives a line about tables that are kept or made anew.

    Raises:
        UserError: As :func:`measure`.
    """
    from probing.commands import check_output_folder

    folder = None if output is None else Path(output)
    if folder is not None:
        check_output_folder(folder)
    identity = _identity(experiment, context, settings)
    names = _expected_tables(experiment, settings)
    if folder is not None and identity is not None:
        paths = [folder / f"{name}.parquet" for name in names]
        differences = ((path, identity.difference(path)) for path in paths)
        if keep:
            changed = next(((path, why) for path, why in differences if why is not None), None)
            if changed is None:
                report(f"Kept:     {', '.join(path.name for path in paths)} in {folder}, made from the same inputs")
                return Result.load(folder, experiment.name)
            report(f"Anew:     {changed[0].name}, because {changed[1]}")
        identity.refuse_others(paths, overwrite=overwrite)
    if folder is not None and context.run.journal is None:
        context = replace(context, run=replace(context.run, journal=folder / "fits"))
    if context.run.encoded is None:
        context = replace(context, run=replace(context.run, encoded=_encoded_folder(context, folder)))
    tables = dict(experiment.run(context, settings))
    # A model of the hub is identified after its download.
    identity = identity or _identity(experiment, context, settings)
    result = Result(experiment.name, tables, identity)
    if folder is None:
        return result
    for stale in set(experiment.table_names) - set(tables):
        # A table of an earlier measurement does not belong to those beside it.
        (folder / f"{stale}.parquet").unlink(missing_ok=True)
    result = result.save(folder)
    if context.run.journal is not None:
        prune_journal(context.run.journal)
    return result


def _encoded_folder(context: Context, output: Path | None) -> Path | None:
    """Return the folder of kept inputs: beside the first store on this machine, else beside the folder of tables."""
    from probing.features.settings import ENCODED

    paths = [path for store in context.stores if (path := getattr(store, "path", None))]
    beside = next((path for path in paths if not is_remote(path)), output)
    return None if beside is None else Path(beside).parent / ENCODED


def experiment_function(experiment: Experiment) -> ExperimentFunction:
    """Make the public function of an experiment, with its settings in the signature."""

    if "stores" in experiment.inputs:

        def function(stores: Stores = (), pairs: pd.DataFrame | None = None, **options: Any) -> Result:
            return measure(experiment.name, stores, pairs, **options)

        positional: tuple[str, ...] = ("stores", "pairs")
    else:

        def function(model: Any, data: Any = None, **options: Any) -> Result:  # type: ignore[misc]
            return measure(experiment.name, model=model, data=data, **options)

        positional = ("model", "data")
    signature = inspect.signature(measure)
    left_out = {"experiment", "settings", "stores", "pairs", *positional}
    common = [p for p in signature.parameters.values() if p.name not in left_out]
    first = [signature.parameters[name].replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in positional]
    own = inspect.signature(experiment.settings_class).parameters.values()
    keywords = [p.replace(kind=p.KEYWORD_ONLY) for p in own]
    rest = [p for p in common if p.kind is p.KEYWORD_ONLY]
    function.__signature__ = signature.replace(parameters=[*first, *keywords, *rest])  # type: ignore[attr-defined]
    function.__name__ = function.__qualname__ = experiment.key
    about = inspect.cleandoc(experiment.settings_class.__doc__ or "")
    function.__doc__ = f"{experiment.question}\n\n{about}\n\nOther arguments: see :func:`probing.measure`."
    return function


def open_stores(stores: Stores) -> tuple[FeatureSource, ...]:
    """Open feature stores given by path.

    Raises:
        UserError: A path holds no feature store.
    """
    from probing.features import FeatureStore

    several: Iterable[Any] = stores if isinstance(stores, list | tuple) else [stores]
    return tuple(FeatureStore.open(store) if isinstance(store, str | Path) else store for store in several)


def _pairs(stores: Sequence[FeatureSource]) -> pd.DataFrame:
    if not stores:
        return pd.DataFrame()
    read = getattr(stores[0], "read_pairs", None)
    if read is None:
        raise UserError("The store has no table of pairs; give pairs.")
    return read()


def _settings(experiment: Experiment, settings: dict[str, Any]) -> Any:
    cls = experiment.settings_class
    names = [field.name for field in fields(cls)]
    unknown = [name for name in settings if name not in names]
    if unknown:
        raise UserError(
            f"{experiment.name} has no setting {unknown[0]!r}; its settings are {', '.join(names) or 'none'}."
        )
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    if isinstance(curve := values.get("curve"), Result):
        # A table on disk records the pairs and the recipe that it was fitted with.
        main = experiment_of(curve.experiment).table_names[0]
        values["curve"] = curve.table if curve.folder is None else str(curve.folder / f"{main}.parquet")
    return cls(**values)


def _model(experiment: Experiment, model: Any, stores: Sequence[FeatureSource]) -> Model | None:
    if "model" not in experiment.inputs or isinstance(model, Model):
        return model if isinstance(model, Model) else None
    from probing.backbones import pick_compute_dtype, pick_device, resolve

    name = model if model is not None else (stores[0].attributes.get("model") if stores else None)
    if name is None:
        raise UserError(f"{experiment.name} needs a model; give its registry name or its folder.")
    device = pick_device()
    return Model(resolve(str(name)), device, pick_compute_dtype("auto", device))


def _data(experiment: Experiment, data: Any, settings: dict[str, Any]) -> PreferenceData | None:
    from probing.preferences import PreferenceData, load_pairs

    if isinstance(data, PreferenceData):
        return data
    needed = "data" in experiment.inputs or (data is not None) or bool(settings.get("image_stats"))
    return load_pairs("testbed" if data is None else str(data)) if needed else None


def _only_split(data: PreferenceData) -> str | None:
    """Return the split of the data; None if they have several."""
    splits = data.pairs["split"].unique()
    return str(splits[0]) if len(splits) == 1 else None


def _identity(experiment: Experiment, context: Context, settings: Any) -> Identity | None:
    identify_experiment = experiment.hook("identify")
    if identify_experiment is not None:
        return identify_experiment(context, settings)
    further = experiment.hook("options")
    options = {
        "experiment": experiment.name,
        "sites": vars(context.sites),
        "facets": context.facets,
        "recipe": vars(context.recipe),
        "seed": context.run.seed,
        **vars(settings),
        **({} if further is None else further(context, settings)),
    }
    subjects = context.stores if experiment.all_stores else [context.trained]
    return identify(context.stores, context.pairs, options, subjects=subjects)


def _expected_tables(experiment: Experiment, settings: Any) -> list[str]:
    expected = experiment.hook("tables")
    return list(experiment.table_names) if expected is None else list(expected(settings))


class ExperimentFunction(Protocol):
    """A public function of an experiment: ``(stores, pairs, **options) -> Result``; see :func:`measure`."""

    def __call__(self, stores: Stores = (), pairs: pd.DataFrame | None = None, **options: Any) -> Result: ...


reward_curve: ExperimentFunction
similarity: ExperimentFunction
token_maps: ExperimentFunction
heat_maps: ExperimentFunction
combinations: ExperimentFunction
noise: ExperimentFunction
scaling: ExperimentFunction
controls: ExperimentFunction
factorial: ExperimentFunction


def __getattr__(name: str) -> ExperimentFunction:
    """Return the public function of an experiment in the registry."""
    for experiment in EXPERIMENTS.values():
        if experiment.key == name:
            return experiment_function(experiment)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
