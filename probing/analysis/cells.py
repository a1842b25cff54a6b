"""One probe for each cell: facet × stream × reduction × sigma × block."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from tqdm import tqdm

from probing.analysis.pairs import Facet, Side, facets_of
from probing.analysis.results import COLUMNS, KEYS, CellResults, provenance
from probing.analysis.source import FeatureSource, Place, choose, places
from probing.errors import UserError
from probing.probes import PROBES
from probing.statistics import cluster_bootstrap, outcomes

CONTROLS = ("none", "shuffled")
LATENTS = "latents"
RESAMPLES = 2000

_Reading = tuple[dict[str, Any], Callable[[], Float[np.ndarray, "item ..."]]]
"""Columns that name a place, and the function that reads its features."""


def fit_cells(
    store: FeatureSource,
    pairs: pd.DataFrame,
    *,
    streams: Sequence[str] | None = None,
    reductions: Sequence[str] | None = None,
    sigmas: Sequence[float] | None = None,
    blocks: Sequence[int] | None = None,
    facets: Sequence[str] | None = None,
    control: str = "none",
    probe: str = "logistic",
    seed: int = 0,
    progress: bool = True,
) -> CellResults:
    """Fit one probe for each cell on the pairs of split ``train`` and score it once on those of ``test``.

    Args:
        store: Features.
        pairs: pair_id, prompt_id, first, second, choice, split, facet; optionally ``probability`` of the annotators
            choosing the first, which gives the ceiling.
        streams: Which streams; all if None. Likewise the next four.
        reductions: Which reductions.
        sigmas: Which noise levels.
        blocks: Which blocks; a stream without one of them is not asked for it.
        facets: Which facets.
        control: ``none``, or ``shuffled``: training choices are dealt out anew among the training pairs of each cell,
            their sides having been drawn first (else nothing would be shuffled where the chosen item always comes
            first). Test choices stay true. A store of fresh weights is the control ``random-init`` by itself.
        probe: Of :data:`probing.probes.PROBES`.
        seed: Of the shuffles and of the bootstrap.
        progress: Whether to show a progress bar, on a terminal.

    Raises:
        UserError: Prompts on both sides of the split, items that are missing or unwritten, too few pairs, or cells
            that the store does not have.
    """
    if control not in CONTROLS:
        raise UserError(f"Unknown control {control!r}; known are {', '.join(CONTROLS)}.")
    asked = places(store, streams=streams, reductions=reductions, sigmas=sigmas, blocks=blocks)
    named = _control_name(bool(store.attributes.get("random_init", False)), control)

    def readings() -> Iterable[_Reading]:
        for place in asked:
            depth = (place.block + 1) / store.num_blocks
            yield {**place._asdict(), "depth": depth}, partial(store.read, *place)

    return _fit(store, pairs, facets, readings(), len(asked), named, control == "shuffled", probe, seed, progress)


def fit_latents(
    store: FeatureSource,
    pairs: pd.DataFrame,
    *,
    reductions: Sequence[str] | None = None,
    facets: Sequence[str] | None = None,
    probe: str = "logistic",
    seed: int = 0,
    progress: bool = True,
) -> CellResults:
    """Fit the control without a transformer: probes on the clean VAE latents, reduced as the features are.

    Args:
        store: Features; its latents are the same whatever the transformer's weights.
        pairs: As for :func:`fit_cells`.
        reductions: Which reductions of the latents; all if None.
        facets: Which facets.
        probe: Of :data:`probing.probes.PROBES`.
        seed: Of the bootstrap.
        progress: Whether to show a progress bar, on a terminal.

    Raises:
        UserError: As :func:`fit_cells`.
    """
    names = choose("reduction of latents", reductions, store.latent_reductions())

    def readings() -> Iterable[_Reading]:
        for name in names:
            where = {"stream": LATENTS, "reduction": name, "sigma": float("nan"), "block": pd.NA, "depth": float("nan")}
            yield where, partial(store.read_latents, name)

    return _fit(store, pairs, facets, readings(), len(names), LATENTS, False, probe, seed, progress)


def _fit(
    store: FeatureSource,
    pairs: pd.DataFrame,
    asked_facets: Sequence[str] | None,
    readings: Iterable[_Reading],
    total: int,
    control: str,
    shuffle: bool,
    probe: str,
    seed: int,
    progress: bool,
) -> CellResults:
    if probe not in PROBES:
        raise UserError(f"Unknown probe {probe!r}; known are {', '.join(PROBES)}.")
    facets = facets_of(store, pairs, asked_facets)
    rows: dict[str, list[dict[str, Any]]] = {facet.name: [] for facet in facets}
    scored: dict[str, dict[str, np.ndarray]] = {facet.name: {} for facet in facets}
    bar = tqdm(total=total * len(facets), desc=f"probes ({control})", unit="fit", disable=None if progress else True)
    with bar:
        for where, read in readings:
            features = read()
            for facet in facets:
                cell = cell_name(control, facet.name, where, seed if shuffle else None)
                train = facet.train
                X, y = train.differences(features), train.choices
                if shuffle:
                    X, y = _shuffled(X, y, np.random.default_rng([seed, zlib.crc32(cell.encode())]))
                fitted = PROBES[probe]().fit(X, y, train.prompts)
                margins = fitted.decision_function(facet.test.differences(features))
                scored[facet.name][cell] = outcomes(margins, facet.test.choices)
                rows[facet.name].append(
                    {**where, "cell": cell, "alpha": fitted.alpha_, "cv_accuracy": fitted.cv_accuracy_}
                )
                bar.update()
    common = {**provenance(store), "split": "test", "probe": probe, "control": control, "seed": seed}
    parts = [_summary(facet, rows[facet.name], scored[facet.name], common, seed) for facet in facets]
    table = pd.concat([part.table for part in parts], ignore_index=True)
    return CellResults(table, pd.concat([part.outcomes for part in parts], ignore_index=True))


def _summary(
    facet: Facet, rows: list[dict[str, Any]], scored: dict[str, np.ndarray], common: dict[str, Any], seed: int
) -> CellResults:
    """Give each cell of a facet its accuracy and interval; all cells share their resamples of prompts."""
    test = facet.test
    matrix = np.stack([scored[row["cell"]] for row in rows], axis=1)
    interval = cluster_bootstrap(matrix, test.prompts, resamples=RESAMPLES, seed=seed)
    untied = test.choices != 0.5
    table = pd.DataFrame(rows).assign(
        **common,
        facet=facet.name,
        metric="accuracy",
        value=interval.estimate,
        ci_low=interval.low,
        ci_high=interval.high,
        n_pairs=int(untied.sum()),
        n_prompts=len(np.unique(test.prompts[untied])),
        n_train_pairs=len(facet.train.choices),
        ceiling=_ceiling(test, untied),
    )
    table["block"] = table["block"].astype("Int64")
    return CellResults(
        table[list(COLUMNS)], pd.concat([test.table[KEYS], pd.DataFrame(matrix, columns=list(scored))], axis=1)
    )


def _ceiling(test: Side, untied: np.ndarray) -> float:
    """Accuracy to be expected of the true reward's sign on these pairs, where annotators choose by probability."""
    if "probability" not in test.table:
        return float("nan")
    probability = test.table.loc[untied, "probability"].to_numpy(dtype=np.float64)
    return float(np.maximum(probability, 1 - probability).mean())


def _shuffled(
    X: Float[np.ndarray, "pair channel"], y: Float[np.ndarray, " pair"], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "pair channel"], Float[np.ndarray, " pair"]]:
    first = rng.random(len(y)) < 0.5
    return np.where(first[:, None], X, -X), rng.permutation(np.where(first, y, 1 - y))


def _control_name(random_init: bool, control: str) -> str:
    if random_init:
        return "random-init" if control == "none" else f"random-init-{control}"
    return control


def cell_name(control: str, facet: str, where: dict[str, Any], seed: int | None) -> str:
    """Name a cell: ``none/quality/image/mean/0.005/7``; a shuffle adds its seed."""
    if where["stream"] == LATENTS:
        parts = [control, facet, where["reduction"]]
    else:
        place = Place(where["stream"], where["reduction"], where["sigma"], where["block"])
        parts = [control, facet, place.stream, place.reduction, repr(float(place.sigma)), str(place.block)]
    return "/".join(parts) + ("" if seed is None else f"/seed{seed}")
