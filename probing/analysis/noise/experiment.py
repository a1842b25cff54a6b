"""Noise: accuracy by noise level, by several levels or draws together, and variance of a reward over draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from probing.analysis.engine import (
    ALL,
    LOGISTIC,
    Context,
    Facet,
    FeatureSource,
    Fit,
    Fitter,
    Job,
    Recipe,
    Run,
    Site,
    Sites,
    StoreIdentity,
    Tables,
    accuracies,
    check_comparable,
    column_names,
    common_columns,
    correct,
    digest_of,
    facets_of,
    flatten,
    gains,
    read_site,
)
from probing.analysis.noise.redraws import score_redraws, variance_ratios
from probing.errors import UserError
from probing.progress import progress
from probing.statistics import RESAMPLES, outcomes, resampled_means, sums_by_group

COLUMNS = column_names(
    "model data split facet stream reduction sigma block depth kind method draws pair_noise metric value ci_low "
    "ci_high gain gain_low gain_high gain_p_value gain_p_value_holm gain_family gain_verdict best_sigma agreement "
    "cv_accuracy n_pairs n_prompts n_train_pairs ceiling probe seed"
)
"""Columns of the table.

``kind``: ``cell``; ``sigmas`` (all noise levels of a block together; sigma is NaN), gained over the block's best
level; ``draws`` (several draws together), gained over the mean of the draws alone; ``redraw`` (effect of redrawn
noise); ``pairing`` (shared noise), gained over independent noise. Gains are corrected by Holm over the rows of a kind
in a facet. ``method`` of combining: ``rewards`` (mean of log odds, each from another probe) or ``features`` (one
probe; levels concatenated, draws averaged). ``best_sigma`` marks the level of highest out-of-fold accuracy on
training pairs; ``agreement`` is how often each is best in bootstrap resamples of training prompts. Metrics of
``redraw``: ``reward_ratio``, variance of an item's reward over draws ÷ variance of rewards over items;
``margin_ratio``, likewise of pairs' margins about zero; ``flip_rate``, how often two draws order a pair differently."""


_Key = tuple[str, str, int]
"""Stream, reduction and block: a site without its noise level."""


def measure_noise(
    stores: Sequence[FeatureSource],
    pairs: pd.DataFrame,
    *,
    sites: Sites = ALL,
    facets: Sequence[str] | None = None,
    recipe: Recipe = LOGISTIC,
    run: Run | None = None,
) -> pd.DataFrame:
    """Measure every cell at every noise level, and the draws of further stores.

    Args:
        stores: The first is measured; further ones are the same backbone and items under other draws of the noise
            (extraction's ``--seed``), or under noise that both items of a pair share (``--pair-noise shared``).
        pairs: As for :func:`probing.analysis.engine.measure_cells`.
        sites: Which sites.
        facets: Which facets; all if None.
        recipe: The probe.
        run: How to run.

    Returns:
        One row a measurement, with the columns :data:`COLUMNS`.

    Raises:
        UserError: Stores that differ in more than their noise, two of the same noise, and what
            :func:`probing.analysis.engine.measure_cells` refuses.
    """
    run = run or Run()
    groups = _group_by_pairing(stores)
    first = stores[0]
    selected = sites.of(first)
    for store in stores[1:]:
        if not set(selected) <= set(ALL.of(store)):
            raise UserError(f"{_name(store)} lacks streams, noise levels or blocks of {_name(first)}; extract them.")
    facets_by_store = [facets_of(store, pairs, facets) for store in stores]
    levels = _levels_by_block(selected)
    repeated = sum(len(group) > 1 for group in groups.values())
    total = len(facets_by_store[0]) * (
        len(selected) * (len(stores) + repeated) + sum(len(candidates) > 1 for candidates in levels.values())
    )
    tables = []
    with progress(total, "noise", "fits", enabled=run.progress) as bar:
        for number, facet in enumerate(facets_by_store[0]):
            fitters = [
                Fitter(store, [by_store[number]], recipe, run, bar=bar)
                for store, by_store in zip(stores, facets_by_store, strict=True)
            ]
            fits: dict[int, dict[Site, Fit]] = {}
            for group in groups.values():
                draws = [stores[index] for index in group] if len(group) > 1 else []
                draw_facets = [facets_by_store[index][number] for index in group]
                for index in group:
                    redraws = draws if index == group[0] else []
                    jobs = [_job(stores[index], site, redraws, recipe, draw_facets) for site in selected]
                    fits[index] = dict(zip(selected, fitters[index].fit_facet(jobs), strict=True))
            rows = [_cell_rows(fits[0], facet, levels, run.seed)]
            rows += _level_rows(first, fits[0], facet, levels, fitters[0])
            for pairing, group in groups.items():
                if len(group) > 1:
                    of_group = [stores[index] for index in group], [fits[index] for index in group]
                    draw_rows = _draw_rows(*of_group, facet, fitters[group[0]])
                    rows.append(draw_rows.assign(pair_noise=pairing))
                    rows.append(variance_ratios(fits[group[0]], facet, run.seed).assign(pair_noise=pairing))
            rows += _pairing_rows(groups, fits, facet)
            table = pd.concat(rows, ignore_index=True)
            common = common_columns(first, facet, recipe, run.seed)
            tables.append(table.assign(**{name: value for name, value in common.items() if name not in table}))
    table = pd.concat(tables, ignore_index=True)
    needed = ("gain", "gain_p_value", "gain_smallest_p_value")
    table = table.assign(**{name: np.nan for name in needed if name not in table})
    table = correct(table, "gain", by=["facet", "kind"], prefix="gain_").reindex(columns=list(COLUMNS))
    table["pair_noise"] = table["pair_noise"].astype(object).fillna(StoreIdentity(first).pair_noise)
    table["depth"] = (table["block"].astype(float) + 1) / first.num_blocks
    return table.astype({"block": "Int64", "draws": "Int64"})


def _job(
    store: FeatureSource, site: Site, draws: Sequence[FeatureSource], recipe: Recipe, facets: Sequence[Facet]
) -> Job:
    """Fit one site; the first of several draws also scores its test items under each."""
    read = partial(read_site, store, site)
    if not draws:
        return Job(str(site), read)
    digests = ",".join(map(digest_of, draws))
    return Job(f"{site}|{digests}", read, partial(score_redraws, draws, site, recipe, facets))


def _cell_rows(fits: dict[Site, Fit], facet: Facet, levels: dict[_Key, list[Site]], seed: int) -> pd.DataFrame:
    sites = list(fits)
    rows = pd.DataFrame([site._asdict() for site in sites]).assign(
        kind="cell", metric="accuracy", cv_accuracy=[fits[site].cv_accuracy for site in sites], best_sigma=False
    )
    matrix = np.stack([fits[site].outcomes for site in sites], axis=1)
    rows = rows.assign(**accuracies(matrix, facet.test.prompts))
    for candidates in levels.values():
        rows.loc[sites.index(_best(fits, candidates)), "best_sigma"] = True
        indices = [sites.index(site) for site in candidates]
        rows.loc[indices, "agreement"] = _agreement([fits[site] for site in candidates], facet, seed)
    return rows


def _agreement(fits: Sequence[Fit], facet: Facet, seed: int) -> np.ndarray:
    """Return how often each fit is the best in bootstrap resamples of training prompts; ties are shared."""
    if any(np.isnan(fit.train_margins).any() for fit in fits):
        return np.full(len(fits), np.nan)
    right = np.stack([outcomes(fit.train_margins, facet.train.choices) for fit in fits], axis=1)
    by_group, _ = sums_by_group(right, facet.train.prompts)
    means = resampled_means(by_group, RESAMPLES, seed)
    wins = means >= means.max(axis=1, keepdims=True) - 1e-12
    return (wins / wins.sum(axis=1, keepdims=True)).mean(axis=0)


def _level_rows(
    store: FeatureSource, fits: dict[Site, Fit], facet: Facet, levels: dict[_Key, list[Site]], fitter: Fitter
) -> list[pd.DataFrame]:
    """Combine all noise levels of a block, by rewards and by features."""
    several = {key: candidates for key, candidates in levels.items() if len(candidates) > 1}
    if not several:
        return []
    jobs = [
        Job("/".join(map(str, (*key, *(site.sigma for site in candidates)))), partial(_concatenate, store, candidates))
        for key, candidates in several.items()
    ]
    y, prompts = facet.test.choices, facet.test.prompts
    by_method = {
        "rewards": [_outcomes_of_mean([fits[site] for site in candidates], y) for candidates in several.values()],
        "features": [fit.outcomes for fit in fitter.fit_facet(jobs)],
    }
    reference = np.stack([fits[_best(fits, candidates)].outcomes for candidates in several.values()], axis=1)
    rows = pd.DataFrame([dict(zip(("stream", "reduction", "block"), key, strict=True)) for key in several])
    return [
        rows.assign(
            kind="sigmas",
            method=method,
            metric="accuracy",
            **accuracies(np.stack(right, axis=1), prompts),
            **gains(np.stack(right, axis=1), reference, prompts),
        )
        for method, right in by_method.items()
    ]


def _draw_rows(
    stores: Sequence[FeatureSource], fits: Sequence[dict[Site, Fit]], facet: Facet, fitter: Fitter
) -> pd.DataFrame:
    """Combine 2, 3, … draws by rewards, and all of them by features."""
    sites = list(fits[0])
    y, prompts = facet.test.choices, facet.test.prompts
    single = np.stack([np.mean([of_draw[site].outcomes for of_draw in fits], axis=0) for site in sites], axis=1)
    digests = ",".join(map(digest_of, stores))
    jobs = [Job(f"{site}|mean|{digests}", partial(_mean_of_draws, stores, site)) for site in sites]
    by_features = [fit.outcomes for fit in fitter.fit_facet(jobs)]
    rows = pd.DataFrame([site._asdict() for site in sites])
    parts = []
    for count in range(2, len(stores) + 1):
        by_rewards = [_outcomes_of_mean([of_draw[site] for of_draw in fits[:count]], y) for site in sites]
        methods = [("rewards", by_rewards)] + ([("features", by_features)] if count == len(stores) else [])
        for method, columns in methods:
            matrix = np.stack(columns, axis=1)
            values = accuracies(matrix, prompts) | gains(matrix, single, prompts)
            parts.append(rows.assign(kind="draws", method=method, draws=count, metric="accuracy", **values))
    return pd.concat(parts, ignore_index=True)


def _pairing_rows(groups: dict[str, list[int]], fits: dict[int, dict[Site, Fit]], facet: Facet) -> list[pd.DataFrame]:
    """Compare shared with independent noise, each the mean over its draws."""
    if set(groups) != {"independent", "shared"}:
        return []
    sites = list(fits[0])
    prompts = facet.test.prompts
    shared, independent = (
        np.stack([np.mean([fits[index][site].outcomes for index in groups[name]], axis=0) for site in sites], axis=1)
        for name in ("shared", "independent")
    )
    return [
        pd.DataFrame([site._asdict() for site in sites]).assign(
            kind="pairing",
            pair_noise="shared",
            metric="accuracy",
            **accuracies(shared, prompts),
            **gains(shared, independent, prompts),
        )
    ]


def _outcomes_of_mean(fits: Sequence[Fit], y: np.ndarray) -> np.ndarray:
    return outcomes(np.mean([fit.log_odds for fit in fits], axis=0), y)


def _concatenate(store: FeatureSource, sites: Sequence[Site]) -> np.ndarray:
    return np.concatenate([flatten(read_site(store, site)) for site in sites], axis=1)


def _mean_of_draws(stores: Sequence[FeatureSource], site: Site) -> np.ndarray:
    ids = np.asarray(stores[0].item_ids)
    total = np.zeros_like(flatten(read_site(stores[0], site)), dtype=np.float64)
    for store in stores:
        row = pd.Index(np.asarray(store.item_ids)).get_indexer(ids)
        total += flatten(read_site(store, site))[row]
    return (total / len(stores)).astype(np.float32)


def _best(fits: dict[Site, Fit], candidates: Sequence[Site]) -> Site:
    return max(candidates, key=lambda site: fits[site].cv_accuracy)


def _levels_by_block(sites: Sequence[Site]) -> dict[_Key, list[Site]]:
    levels: dict[_Key, list[Site]] = {}
    for site in sites:
        levels.setdefault((site.stream, site.reduction, site.block), []).append(site)
    return levels


def _group_by_pairing(stores: Sequence[FeatureSource]) -> dict[str, list[int]]:
    """Group stores by whether pairs share their noise; refuse stores that do not belong together."""
    if not stores:
        raise UserError("There is no store to measure; give one, and more for other draws of the noise.")
    groups: dict[str, list[int]] = {}
    names: dict[tuple[Any, Any], str] = {}
    for index, store in enumerate(stores):
        check_comparable(stores[0], store, apart_from=("noise",))
        noise = (StoreIdentity(store).pair_noise, store.attributes.get("seed"))
        if noise in names:
            raise UserError(
                f"{_name(store)} and {names[noise]} hold the same noise (seed {noise[1]}, {noise[0]}); "
                f"extract one with another --seed."
            )
        names[noise] = _name(store)
        groups.setdefault(noise[0], []).append(index)
    return groups


def _name(store: FeatureSource) -> str:
    return StoreIdentity(store).label


@dataclass(frozen=True)
class NoiseSettings:
    """Noise has no settings."""


def run_noise(context: Context, settings: NoiseSettings) -> Tables:
    """Measure the first store's noise levels, and the draws of the further stores."""
    return {"noise": measure_noise(context.stores, context.pairs, **context.selections)}
