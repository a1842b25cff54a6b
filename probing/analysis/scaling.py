"""Scaling: accuracy against parameters, forward FLOPs and training steps, over all stores given, one head for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probing.analysis.fits import Blocks, Fit, Fitter, Job, Series, accuracies, common_columns, series_of, training_rows
from probing.analysis.model_sizes import size_of, training_steps
from probing.analysis.pairs import facets_of
from probing.analysis.published import add_published_scaling
from probing.analysis.recipe import LOGISTIC, Recipe
from probing.analysis.source import FeatureSource, different_inputs
from probing.analysis.stage_runs import stage_runs
from probing.analysis.trends import finished, trends
from probing.analysis.width import reduce_width
from probing.errors import UserError
from probing.progress import progress as show_progress

DEPTHS = (0.25, 0.5, 0.75, 1.0)
COLUMNS = (
    "model",
    "data",
    "split",
    "facet",
    "stream",
    "reduction",
    "sigma",
    "kind",
    "head",
    "series",
    "control",
    "against",
    "block",
    "depth",
    "blocks",
    "channels",
    "parameters",
    "forward_flops",
    "steps",
    "width",
    "num_blocks",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "models_low",
    "models_high",
    "finished",
    "intercept",
    "residual_deviation",
    "n_models",
    "statement",
    "cv_accuracy",
    "stage_source",
    "n_pairs",
    "n_prompts",
    "n_train_pairs",
    "ceiling",
    "probe",
    "seed",
    "store",
    "revision",
    "config_hash",
    "data_fingerprint",
    "resolution",
    "extraction_seed",
    "package_version",
    "citation",
)
"""Of the table.

``kind``: ``cell`` (one block of one store), ``point`` (one store in a trend), ``fit`` (a trend; ``value`` is the slope,
accuracy a tenfold of ``against``, ``ci_low`` and ``ci_high`` its interval over prompts, ``models_low`` and
``models_high`` over models, of three or more), ``residual`` (of a point from a trend) or ``published`` (see
:func:`probing.analysis.published.add_published_scaling`). ``head``: ``best`` (the block
of highest out-of-fold accuracy on training pairs), ``best-matched`` (its features reduced by principal components to
the width of the narrowest model), ``depth 0.5`` and the like (the block nearest to that relative depth), ``stages``
(one block of every stage, side by side). ``series``: ``trained``, ``random-init``, or ``checkpoints`` of one
architecture. ``finished`` is false of checkpoints that are not the last of their architecture."""


def scaling(
    stores: Sequence[FeatureSource],
    pairs: pd.DataFrame,
    *,
    stages: pd.DataFrame | None = None,
    steps: Mapping[str, float] | None = None,
    streams: Sequence[str] | None = None,
    reductions: Sequence[str] | None = None,
    sigmas: Sequence[float] | None = None,
    facets: Sequence[str] | None = None,
    depths: Sequence[float] = DEPTHS,
    recipe: Recipe = LOGISTIC,
    seed: int = 0,
    workers: int = 1,
    journal: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure every store with the same heads on the same pairs, and fit accuracy = a + b·log10(size).

    Trends are over parameters and over forward FLOPs of one item (of the whole forward), among trained and among
    random-initialised stores apart; and over training steps among checkpoints of one architecture. Where there are
    checkpoints, the one of most steps stands for its model in the first two. A trend's interval is by bootstrap over
    test prompts, the same in all stores, and says nothing of how another model of the same size would have come out;
    of three models or more a second one, by Student's t on the residuals, does.

    Args:
        stores: Features of the same items in several backbones.
        pairs: As for :func:`probing.analysis.fit_cells`; each store must hold their items.
        stages: As for :func:`probing.analysis.stage_runs.stage_runs`.
        steps: Training steps by store name (with or without ``.zarr``) or model; where none are given, those of the
            card beside the model's weights.
        streams: Which streams; all that the stores share if None. Likewise the next three.
        reductions: Which reductions.
        sigmas: Which noise levels.
        facets: Which facets.
        depths: Relative depths in (0, 1] at which models are matched.
        recipe: The head's, the same for all.
        seed: Of the bootstrap.
        workers: Probes fitted at once.
        journal: Folder that keeps what is measured, so that a killed run goes on; the caller takes it away.
        progress: Whether to show a progress bar, on a terminal.

    Returns:
        One row a cell, point, trend or residual, with the columns :data:`COLUMNS`.

    Raises:
        UserError: No series that all stores share, the same store twice, unknown names in ``steps``, and what
            :func:`probing.analysis.fit_cells` refuses.
    """
    _check(stores, depths)
    steps_of = _steps(stores, steps or {})
    shared = _shared(stores, streams=streams, reductions=reductions, sigmas=sigmas)
    sizes = [size_of(store) for store in stores]
    by_store = [facets_of(store, pairs, facets) for store in stores]
    total = len(by_store[0]) * sum(len(_series(s, key).blocks) + 2 for s in stores for key in shared)
    tables = []
    with show_progress(total, "scaling", "fits", enabled=progress) as bar:
        for key in shared:
            readers = [Blocks(store, _series(store, key)) for store in stores]
            narrowest = min(reader.width for reader in readers)
            for number in range(len(by_store[0])):
                points, right = [], []
                for at, (store, reader) in enumerate(zip(stores, readers, strict=True)):
                    facet = by_store[at][number]
                    fitter = Fitter(store, facet, recipe, journal=journal, workers=workers, bar=bar)
                    runs = stage_runs(
                        reader.series.blocks,
                        stages,
                        model=store.attributes.get("model"),
                        stream=key[0],
                        reduction=key[1],
                        sigma=key[2],
                    )
                    common = common_columns(store, facet, recipe, seed) | {
                        "stream": key[0],
                        "reduction": key[1],
                        "sigma": key[2],
                        "width": reader.width,
                        "parameters": sizes[at].parameters,
                        "forward_flops": sizes[at].forward_flops,
                        "steps": steps_of[at],
                        "num_blocks": store.num_blocks,
                        "stage_source": runs.source,
                        "control": "random-init" if store.attributes.get("random_init") else "trained",
                    }
                    for row, fit in _measure(reader, fitter, runs.blocks, narrowest, depths, seed):
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
                # Pairs come in the same order from every store: facets are cut from one table.
                prompts = by_store[0][number].test.prompts
                rows = rows.assign(**accuracies(matrix, prompts, seed))
                for _, part in rows.groupby("head"):
                    rows.loc[part.index, "finished"] = finished(part)
                tables += [rows, trends(rows, matrix, prompts, seed)]
    table = pd.concat([part for part in tables if len(part)], ignore_index=True)
    table = table.reindex(columns=list(COLUMNS)).astype({"block": "Int64", "channels": "Int64", "n_models": "Int64"})
    return add_published_scaling(table)


def _measure(
    reader: Blocks, fitter: Fitter, stages: Sequence[Sequence[int]], narrowest: int, depths: Sequence[float], seed: int
) -> list[tuple[dict[str, Any], Fit]]:
    """Fit every block of one store, and the heads that stand for it."""
    series = reader.series
    stem = "/".join(map(str, series[:3]))
    fits = dict(
        zip(
            series.blocks,
            fitter.fit([Job(f"{stem}/{block}", partial(reader.read, block)) for block in series.blocks]),
            strict=True,
        )
    )
    found = [({"kind": "cell", "head": "cell", "block": b, "blocks": str(b)}, fit) for b, fit in fits.items()]

    def accuracy(block: int) -> float:
        return fits[block].cv_accuracy

    best = max(series.blocks, key=accuracy)
    named = {"best": best} | {f"depth {depth:g}": _nearest(reader, depth) for depth in depths}
    found += [({"kind": "point", "head": head, "block": b, "blocks": str(b)}, fits[b]) for head, b in named.items()]
    standing = [max(run, key=accuracy) for run in stages]
    said = "+".join(map(str, standing))
    rows = training_rows(fitter.facet)

    def matched() -> np.ndarray:
        return reduce_width(reader.read(best), rows, narrowest, how="pca", seed=seed)

    of_stages, of_width = fitter.fit(
        [
            Job(f"{stem}/{said}/stages", partial(reader.concatenate, standing)),
            Job(f"{stem}/{best}/pca{narrowest}-{seed}", matched),
        ]
    )
    found.append(({"kind": "point", "head": "stages", "block": np.nan, "blocks": said}, of_stages))
    found.append(({"kind": "point", "head": "best-matched", "block": best, "blocks": str(best)}, of_width))
    return found


def _nearest(reader: Blocks, depth: float) -> int:
    """Find the block whose output lies nearest to a relative depth; of two, the shallower."""
    total = reader.num_blocks
    return min(reader.series.blocks, key=lambda block: abs((block + 1) / total - depth))


def _shared(stores: Sequence[FeatureSource], **asked: Any) -> list[tuple[str, str, float]]:
    """List (stream, reduction, sigma) that every store has."""
    keys = [[series[:3] for series in series_of(store)] for store in stores]
    both = [key for key in keys[0] if all(key in others for others in keys[1:])]
    if not both:
        raise UserError("The stores share no stream, reduction and noise level; extract them with the same ones.")
    wanted = {series[:3] for series in series_of(stores[0], **asked)}
    chosen = [key for key in both if key in wanted]
    if not chosen:
        have = ", ".join(f"{s}/{r} at σ = {sigma:g}" for s, r, sigma in both)
        raise UserError(f"What is asked for is not in every store; they share {have}.")
    return chosen


def _series(store: FeatureSource, key: tuple[str, str, float]) -> Series:
    stream, reduction, sigma = key
    return series_of(store, streams=[stream], reductions=[reduction], sigmas=[sigma])[0]


def _steps(stores: Sequence[FeatureSource], steps: Mapping[str, float]) -> list[float]:
    names = [_names(store) for store in stores]
    unknown = [name for name in steps if not any(name in known for known in names)]
    if unknown:
        have = ", ".join(sorted({name for known in names for name in known}))
        raise UserError(f"Steps are given for {unknown[0]!r}, and no store is called so; there are {have}.")
    if not all(value > 0 for value in steps.values()):
        raise UserError("Training steps are above 0; leave out an untrained model, or give it as random-init.")
    found = []
    for store, known in zip(stores, names, strict=True):
        # Fresh weights have no steps, whatever the model of their architecture has.
        if store.attributes.get("random_init"):
            found.append(float("nan"))
            continue
        given = [float(steps[name]) for name in known if name in steps]
        found.append(given[0] if given else training_steps(store))
    return found


def _names(store: FeatureSource) -> list[str]:
    path = getattr(store, "path", None)
    return ([] if path is None else [path.name, path.name.removesuffix(".zarr")]) + [str(store.attributes.get("model"))]


def _check(stores: Sequence[FeatureSource], depths: Sequence[float]) -> None:
    if not stores:
        raise UserError("There is no store to measure; give several, one a model.")
    for depth in depths:
        if not 0 < depth <= 1:
            raise UserError(f"A relative depth lies above 0 and up to 1, got {depth:g}.")
    seen: set[tuple] = set()
    for store in stores:
        if store.attributes.get("prompts", "own") != "own":
            raise UserError(f"The store of {_names(store)[0]} was not extracted with own prompts; leave it out.")
        what = tuple(str(store.attributes.get(key)) for key in ("model", "revision", "random_init", "seed"))
        if what in seen:
            raise UserError(f"The store {_names(store)[0]} holds the same weights as one before it; give each once.")
        seen.add(what)
        if inputs := different_inputs(stores[0], store):
            raise UserError(
                f"{_names(store)[0]} differs from {_names(stores[0])[0]} in more than its model: {inputs}; "
                f"extract both from the same data."
            )
