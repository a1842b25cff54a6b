"""Measure cells: one probe for each facet and site, or for each facet and reduction of the pooled latents."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from probing.analysis.engine.facets import facets_of
from probing.analysis.engine.fitting import Fitter, Job
from probing.analysis.engine.provenance import provenance
from probing.analysis.engine.recipe import LOGISTIC, Recipe
from probing.analysis.engine.results import CellResults, cell_results, concatenate_facets, shuffled_results
from probing.analysis.engine.run import Run
from probing.analysis.engine.sites import ALL, Sites, choose, read_for_fits
from probing.analysis.engine.source import FeatureSource, read_latent_reduction
from probing.analysis.engine.store_identity import StoreIdentity
from probing.progress import progress

LATENTS = "latents"


def measure_cells(
    store: FeatureSource,
    pairs: pd.DataFrame,
    *,
    sites: Sites = ALL,
    facets: Sequence[str] | None = None,
    recipe: Recipe = LOGISTIC,
    shuffles: int = 0,
    run: Run | None = None,
) -> CellResults:
    """Fit one probe for each cell on the pairs of split ``train`` and score it once on those of ``test``.

    Args:
        store: Features. Those of random-initialised weights or of other prompts are a control by themselves.
        pairs: ``pair_id, prompt_id, first, second, choice, split, facet``; optionally ``probability`` of the annotators
            choosing the first item, which gives the ceiling.
        sites: Which sites.
        facets: Which facets; all if None.
        recipe: The probe.
        shuffles: Refits of each probe to shuffled training choices, whose mean is a row of control ``shuffled``.
        run: How to run; its seed is that of the shuffles.

    Raises:
        UserError: A prompt in both splits, items that are missing or unwritten, too few pairs, or sites that the store
            lacks.
    """
    selected = sites.of(store)
    run = run or Run()
    # Other probes take what they read as a whole.
    most = run.bytes_of_a_fit if recipe.streams else math.inf
    read = partial(read_for_fits, store, most_bytes=most, folder=run.journal)
    jobs = [Job(str(site), partial(read, site)) for site in selected]
    lists = _block_lists(store)
    columns = [
        {
            **site._asdict(),
            "depth": (site.block + 1) / store.num_blocks,
            **({"block_list": lists[site.block]} if lists else {}),
        }
        for site in selected
    ]
    return _measure(store, pairs, jobs, columns, facets, recipe, run, shuffles=shuffles)


def _block_lists(store: FeatureSource) -> list[str]:
    """Name the list of each block, where a backbone has several kinds of block; empty where it has one."""
    lists = store.attributes.get("block_lists") or []
    return [name for name, count in lists for _ in range(count)] if len(lists) > 1 else []


def measure_latents(
    store: FeatureSource,
    pairs: pd.DataFrame,
    *,
    reductions: Sequence[str] | None = None,
    facets: Sequence[str] | None = None,
    recipe: Recipe = LOGISTIC,
    run: Run | None = None,
) -> CellResults:
    """Measure the control without a transformer: probes on the clean VAE latents, reduced as the features are.

    Args:
        store: Features; its latents are the same whatever the transformer's weights.
        pairs: As for :func:`measure_cells`.
        reductions: Which reductions of the latents; all if None.
        facets: Which facets; all if None.
        recipe: The probe.
        run: How to run.

    Raises:
        UserError: As :func:`measure_cells`.
    """
    names = choose("reduction of latents", reductions, store.latent_reductions())
    nowhere = {"sigma": float("nan"), "block": pd.NA, "depth": float("nan")}
    jobs = [Job(name, partial(read_latent_reduction, store, name)) for name in names]
    columns = [{"stream": LATENTS, "reduction": name, **nowhere} for name in names]
    return _measure(store, pairs, jobs, columns, facets, recipe, run or Run(), control=LATENTS)


def _measure(
    store: FeatureSource,
    pairs: pd.DataFrame,
    jobs: Sequence[Job],
    columns: Sequence[Mapping[str, Any]],
    facets: Sequence[str] | None,
    recipe: Recipe,
    run: Run,
    *,
    shuffles: int = 0,
    control: str | None = None,
) -> CellResults:
    selected = facets_of(store, pairs, facets)
    control = StoreIdentity(store).control if control is None else control
    with progress(len(jobs) * len(selected), f"probes ({control})", "fits", enabled=run.progress) as bar:
        fits = Fitter(store, selected, recipe, run, shuffles=shuffles, control=control, bar=bar).fit(jobs)
    common = {**provenance(store), "probe": recipe.probe, "control": control, "seed": run.seed}
    parts = []
    for number, facet in enumerate(selected):
        of_facet = [of_job[number] for of_job in fits]
        results = cell_results(facet, columns, of_facet, common)
        shuffled = [shuffled_results(facet, columns, of_facet, common)] if shuffles else []
        parts.append(CellResults.join(results, *shuffled))
    return concatenate_facets(parts)
