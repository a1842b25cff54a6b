"""Scaling: accuracy against parameters, forward FLOPs and training steps, over all stores, with one kind of head."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from probing.analysis.engine import (
    ALL,
    LOGISTIC,
    Context,
    Curve,
    CurveReader,
    FeatureSource,
    Fit,
    Fitter,
    Job,
    Recipe,
    Run,
    Sites,
    StoreIdentity,
    Tables,
    accuracies,
    check_models,
    column_names,
    common_columns,
    correct,
    facets_of,
)
from probing.analysis.engine.table_input import TableInput, loaded
from probing.analysis.engine.width import reduce_width
from probing.analysis.published import add_published_scaling
from probing.analysis.scaling.model_sizes import size_of, training_steps
from probing.analysis.scaling.trends import finished, statement, trends
from probing.analysis.similarity.stage_input import load_stages
from probing.analysis.similarity.stage_runs import stage_runs
from probing.analysis.taps import taps_of
from probing.errors import UserError
from probing.progress import progress

DEPTHS = (0.25, 0.5, 0.75, 1.0)
COLUMNS = (
    *column_names(
        "model pipeline data split facet stream reduction sigma kind head series control against block depth blocks "
        "channels parameters forward_flops steps width num_blocks metric value ci_low ci_high p_value p_value_holm "
        "family verdict sizes_low sizes_high finished intercept residual_deviation n_models n_sizes statement "
        "cv_accuracy stage_source n_pairs n_prompts n_train_pairs ceiling probe seed"
    ),
    "citation",
)
"""Columns of the table.

``kind``: ``cell`` (one block of one store), ``point`` (one store in a trend), ``fit`` (a trend; ``value`` is the slope,
accuracy a tenfold of ``against``, ``ci_low`` and ``ci_high`` its interval over prompts, ``sizes_low`` and
``sizes_high`` for other sizes and trainings, of three sizes or more), ``residual`` (of a size from a trend) or
``published`` (see :func:`probing.analysis.published.add_published_scaling`). ``head``: ``best`` (the block of highest
out-of-fold accuracy on training pairs), ``best-matched`` (its features reduced by principal components to the width of
the narrowest model), ``depth 0.5`` and the like (the block nearest to that relative depth), ``stages`` (one block of
every stage, side by side), ``taps dina`` and the like (the blocks that a published reward reads, side by side).
``series``: ``trained``, ``random-init``, ``trained less random-init``, ``trained, FluxPipeline`` and the like for the
models of one of several families, or the ``training`` of one architecture, by its steps. P-values are corrected by Holm
over the slopes of a series against one measure of size. ``finished`` is false of checkpoints that are not the last of
their architecture."""


@dataclass(frozen=True)
class ScalingSettings:
    """How models are matched and measured along their training.

    Attributes:
        stages: Stages of all models as a table (.parquet, .csv) or runs of blocks; default: equal parts.
        steps: Training steps by store name (with or without ``.zarr``) or model, as NAME=VALUE; default: those of the
            card beside the model's weights.
        depths: Relative depths in (0, 1] at which models are matched.
        taps: Published rules of blocks to measure too: dit-reward, dina, registers.

    Raises:
        UserError: A table that cannot be read, a depth outside (0, 1], an unknown rule, or steps that are not above 0.
    """

    stages: TableInput | None = None
    steps: Mapping[str, float] = field(default_factory=dict)
    depths: tuple[float, ...] = DEPTHS
    taps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for depth in self.depths:
            if not 0 < depth <= 1:
                raise UserError(f"A relative depth is above 0 and up to 1, got {depth:g}.")
        for name in self.taps:
            taps_of(name)
        if not all(value > 0 for value in self.steps.values()):
            raise UserError("Training steps are above 0; leave out an untrained model, or give it as random-init.")
        if self.stages is not None:
            object.__setattr__(self, "stages", load_stages(self.stages))


def measure_scaling(
    stores: Sequence[FeatureSource],
    pairs: pd.DataFrame,
    settings: ScalingSettings | None = None,
    *,
    sites: Sites = ALL,
    facets: Sequence[str] | None = None,
    recipe: Recipe = LOGISTIC,
    run: Run | None = None,
) -> pd.DataFrame:
    """Measure every store with the same heads on the same pairs, and fit accuracy = a + b·log10(size).

    Trends are over parameters and over forward FLOPs of one item, separately for trained and for random-initialised
    stores and for their difference; and over the steps of one training. The checkpoint of most steps represents its
    model in the first three. See :func:`probing.analysis.scaling.trends.trends` for the intervals.

    Args:
        stores: Features of the same items in several backbones.
        pairs: As for :func:`probing.analysis.engine.measure_cells`; each store must hold their items.
        settings: Stages, training steps and depths.
        sites: Which sites, of those that all stores share; every block of a curve is used.
        facets: Which facets; all if None.
        recipe: The probe of every head.
        run: How to run.

    Returns:
        One row a cell, point, trend or residual, with the columns :data:`COLUMNS`.

    Raises:
        UserError: No curve that all stores share, the same store twice, unknown names in ``steps``, and what
            :func:`probing.analysis.engine.measure_cells` refuses.
    """
    run, settings = run or Run(), settings or ScalingSettings()
    if sites.blocks is not None:
        raise UserError("Scaling matches models by depth and reads every block; leave out --blocks.")
    check_models(stores)
    steps_of = _steps(stores, settings.steps)
    shared = _shared_curves(stores, sites)
    sizes = [size_of(store) for store in stores]
    facets_by_store = [facets_of(store, pairs, facets) for store in stores]
    total = len(facets_by_store[0]) * sum(
        len(curve.blocks) + 2 + len(settings.taps) for curves in shared for curve in curves
    )
    tables = []
    with progress(total, "scaling", "fits", enabled=run.progress) as bar:
        for curves in shared:
            readers = [CurveReader(store, curve) for store, curve in zip(stores, curves, strict=True)]
            narrowest = min(reader.width for reader in readers)
            for number in range(len(facets_by_store[0])):
                points, right = [], []
                for index, (store, reader) in enumerate(zip(stores, readers, strict=True)):
                    facet = facets_by_store[index][number]
                    fitter = Fitter(store, [facet], recipe, run, bar=bar)
                    stream, reduction, sigma, blocks = reader.curve
                    runs = stage_runs(
                        blocks,
                        None if settings.stages is None else loaded(settings.stages),
                        model=store.attributes.get("model"),
                        stream=stream,
                        reduction=reduction,
                        sigma=sigma,
                        divide_one=True,
                    )
                    common = common_columns(store, facet, recipe, run.seed) | {
                        "stream": stream,
                        "reduction": reduction,
                        "sigma": sigma,
                        "width": reader.width,
                        "parameters": sizes[index].parameters,
                        "forward_flops": sizes[index].forward_flops,
                        "steps": steps_of[index],
                        "num_blocks": store.num_blocks,
                        "pipeline": store.attributes.get("pipeline"),
                        "stage_source": runs.source,
                        "control": StoreIdentity(store).control,
                    }
                    taps = {
                        name: taps_of(name).blocks(store.num_blocks, store.attributes.get("pipeline"), among=blocks)
                        for name in settings.taps
                    }
                    measured = _measure_store(
                        reader, fitter, runs.blocks, narrowest, settings.depths, taps, seed=run.seed
                    )
                    for row, fit in measured:
                        points.append(
                            {
                                **common,
                                **row,
                                "cv_accuracy": fit.cv_accuracy,
                                "channels": fit.channels,
                                "depth": (row["block"] + 1) / store.num_blocks,
                            }
                        )
                        right.append(fit.outcomes)
                rows = pd.DataFrame(points)
                matrix = np.stack(right, axis=1)
                # Pairs have the same order in every store: facets come from one table.
                prompts = facets_by_store[0][number].test.prompts
                rows = rows.assign(**accuracies(matrix, prompts))
                for _, part in rows.groupby("head"):
                    rows.loc[part.index, "finished"] = finished(part)
                tables += [rows, trends(rows, matrix, prompts)]
    table = pd.concat([part for part in tables if len(part)], ignore_index=True)
    if "p_value" in table:
        table = correct(table, "value", by=["series", "against"])
        fits = table["kind"] == "fit"
        table.loc[fits, "statement"] = [statement(row) for row in table[fits].to_dict("records")]
    table = table.reindex(columns=list(COLUMNS))
    return add_published_scaling(table.astype(dict.fromkeys(("block", "channels", "n_models", "n_sizes"), "Int64")))


def _measure_store(
    reader: CurveReader,
    fitter: Fitter,
    stages: Sequence[Sequence[int]],
    narrowest: int,
    depths: Sequence[float],
    taps: Mapping[str, Sequence[int]],
    *,
    seed: int,
) -> list[tuple[dict[str, Any], Fit]]:
    """Fit every block of one store, and the heads that represent it."""
    curve = reader.curve
    jobs = [Job(str(curve.site(block)), partial(reader.read, block)) for block in curve.blocks]
    fits = dict(zip(curve.blocks, fitter.fit_facet(jobs), strict=True))
    rows = [({"kind": "cell", "head": "cell", "block": b, "blocks": str(b)}, fit) for b, fit in fits.items()]

    def accuracy(block: int) -> float:
        return fits[block].cv_accuracy

    best = max(curve.blocks, key=accuracy)
    block_of = {"best": best} | {f"depth {depth:g}": curve.block_at(depth, reader.num_blocks) for depth in depths}
    rows += [({"kind": "point", "head": head, "block": b, "blocks": str(b)}, fits[b]) for head, b in block_of.items()]
    representative = [max(run, key=accuracy) for run in stages]
    label = "+".join(map(str, representative))

    def matched() -> np.ndarray:
        return reduce_width(reader.read(best), fitter.facet.training_rows, narrowest, how="pca", seed=seed)

    of_stages, of_width, *of_taps = fitter.fit_facet(
        [
            Job(f"{curve}/{label}/stages", partial(reader.concatenate, representative)),
            Job(f"{curve}/{best}/pca{narrowest}-{seed}", matched),
            *(
                Job(f"{curve}/{'+'.join(map(str, blocks))}/stages", partial(reader.concatenate, blocks))
                for blocks in taps.values()
            ),
        ]
    )
    rows.append(({"kind": "point", "head": "stages", "block": np.nan, "blocks": label}, of_stages))
    rows.append(({"kind": "point", "head": "best-matched", "block": best, "blocks": str(best)}, of_width))
    for (name, blocks), fit in zip(taps.items(), of_taps, strict=True):
        row = {"kind": "point", "head": f"taps {name}", "block": np.nan, "blocks": "+".join(map(str, blocks))}
        rows.append((row, fit))
    return rows


def _shared_curves(stores: Sequence[FeatureSource], sites: Sites) -> list[list[Curve]]:
    """List the selected curves that all stores have, each as a list of one curve a store."""
    by_store = [{curve[:3]: curve for curve in ALL.curves_of(store)} for store in stores]
    shared = [key for key in by_store[0] if all(key in curves for curves in by_store[1:])]
    if not shared:
        raise UserError("The stores share no stream, reduction and noise level; extract them with the same ones.")
    selected = {curve[:3] for curve in sites.curves_of(stores[0])}
    keys = [key for key in shared if key in selected]
    if not keys:
        available = ", ".join(f"{stream}/{reduction} at σ = {sigma:g}" for stream, reduction, sigma in shared)
        raise UserError(f"The selection is not in every store; they share {available}.")
    return [[curves[key] for curves in by_store] for key in keys]


def _steps(stores: Sequence[FeatureSource], steps: Mapping[str, float]) -> list[float]:
    names = [_names(store) for store in stores]
    unknown = [name for name in steps if not any(name in of_store for of_store in names)]
    if unknown:
        available = ", ".join(sorted({name for of_store in names for name in of_store}))
        raise UserError(f"Steps are given for {unknown[0]!r}, and no store has this name; there are {available}.")
    values = []
    for store, of_store in zip(stores, names, strict=True):
        # Random weights have no steps, whatever the model of their architecture has.
        if StoreIdentity(store).random_init:
            values.append(float("nan"))
            continue
        given = [float(steps[name]) for name in of_store if name in steps]
        values.append(given[0] if given else training_steps(store))
    return values


def _names(store: FeatureSource) -> list[str]:
    path = getattr(store, "path", None)
    return ([] if path is None else [path.name, path.name.removesuffix(".zarr")]) + [str(store.attributes.get("model"))]


def run_scaling(context: Context, settings: ScalingSettings) -> Tables:
    """Measure all stores with the same heads."""
    return {"scaling": measure_scaling(context.stores, context.pairs, settings, **context.selections)}


def options_scaling(context: Context, settings: ScalingSettings) -> dict[str, Any]:
    """Return the training steps of the models' cards, which change values but are in no setting or store."""
    steps = (training_steps(store) for store in context.stores)
    return {"steps_of_cards": [None if math.isnan(number) else number for number in steps]}
