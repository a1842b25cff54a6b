"""Noise: which level is best for which block, what several levels or draws together know, and what a draw moves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probing.analysis.fits import Fit, Fitter, Job, accuracies, common_columns, gains
from probing.analysis.pairs import Facet, facets_of
from probing.analysis.recipe import LOGISTIC, Recipe
from probing.analysis.redraws import redrawn, variance_ratios
from probing.analysis.source import FeatureSource, Place, different_inputs, identity_of, places, read_site
from probing.errors import UserError
from probing.progress import progress as show_progress
from probing.statistics import holm, outcomes, resampled_means, sums_by_group

RESAMPLES = 2000
_SAME = ("model", "revision", "config_hash", "resolution", "resize", "background", "random_init", "prompts")

COLUMNS = (
    "model",
    "data",
    "split",
    "facet",
    "stream",
    "reduction",
    "sigma",
    "block",
    "depth",
    "kind",
    "method",
    "draws",
    "pair_noise",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "gain",
    "gain_low",
    "gain_high",
    "gain_p_value",
    "gain_p_value_holm",
    "best_sigma",
    "agreement",
    "cv_accuracy",
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
)
"""Of the table.

``kind``: ``cell``; ``sigmas`` (all noise levels of a block together; sigma is NaN), gained over the block's best level;
``draws`` (several draws together), gained over the mean of the draws alone; ``redraw`` (what redrawn noise moves);
``pairing`` (shared noise), gained over independent noise. ``method`` of what is put together: ``rewards`` (mean of log
odds, each from a probe of its own) or ``features`` (one probe: levels side by side, draws averaged). ``best_sigma``
marks the level of highest out-of-fold accuracy on training pairs; ``agreement`` is how often each is it in bootstrap
resamples of training prompts. Metrics of ``redraw``: ``reward_ratio``, variance of an item's reward over draws ÷
variance of rewards over items; ``margin_ratio``, likewise of pairs' margins about zero; ``flip_rate``, how often two
draws order a pair differently."""


def noise(
    stores: Sequence[FeatureSource],
    pairs: pd.DataFrame,
    *,
    streams: Sequence[str] | None = None,
    reductions: Sequence[str] | None = None,
    sigmas: Sequence[float] | None = None,
    blocks: Sequence[int] | None = None,
    facets: Sequence[str] | None = None,
    recipe: Recipe = LOGISTIC,
    seed: int = 0,
    workers: int = 1,
    journal: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure every cell at every noise level, and what the other stores allow.

    Args:
        stores: The first is measured; further ones are the same backbone and items under other draws of the noise
            (extraction's ``--seed``), or under noise that both items of a pair share (``--pair-noise shared``).
        pairs: As for :func:`probing.analysis.fit_cells`.
        streams: Which streams; all if None. Likewise the next four.
        reductions: Which reductions.
        sigmas: Which noise levels.
        blocks: Which blocks.
        facets: Which facets.
        recipe: What is fitted.
        seed: Of the bootstrap.
        workers: Probes fitted at once.
        journal: Folder that keeps what is measured, so that a killed run goes on; the caller takes it away.
        progress: Whether to show a progress bar, on a terminal.

    Returns:
        One row a measurement, with the columns :data:`COLUMNS`.

    Raises:
        UserError: Stores that differ in more than their noise, two of the same noise, and what
            :func:`probing.analysis.fit_cells` refuses.
    """
    groups = _by_pairing(stores)
    first = stores[0]
    asked = places(first, streams=streams, reductions=reductions, sigmas=sigmas, blocks=blocks)
    for store in stores[1:]:
        places(store, streams=streams, reductions=reductions, sigmas=sigmas, blocks=blocks)
        if not set(asked) <= set(places(store)):
            raise UserError(f"{_name(store)} lacks streams, noise levels or blocks of {_name(first)}; extract them.")
    by_store = [facets_of(store, pairs, facets) for store in stores]
    at_block = _by_block(asked)
    several = sum(len(group) > 1 for group in groups.values())
    total = len(by_store[0]) * (len(asked) * (len(stores) + several) + sum(len(ps) > 1 for ps in at_block.values()))
    tables = []
    with show_progress(total, "noise", "fits", enabled=progress) as bar:
        for number, facet in enumerate(by_store[0]):
            fits: dict[int, dict[Place, Fit]] = {}
            rows: list[pd.DataFrame] = []
            for group in groups.values():
                for at in group:
                    others = [stores[other] for other in group if len(group) > 1]
                    fitter = Fitter(stores[at], by_store[at][number], recipe, journal=journal, workers=workers, bar=bar)
                    jobs = [
                        _job(
                            stores[at],
                            place,
                            others if at == group[0] else [],
                            recipe,
                            by_store[at][number],
                            [by_store[o][number] for o in group],
                        )
                        for place in asked
                    ]
                    fits[at] = dict(zip(asked, fitter.fit(jobs), strict=True))
            fitter = Fitter(first, facet, recipe, journal=journal, workers=workers, bar=bar)
            rows.append(_cells(fits[0], facet, at_block, seed))
            rows += _sigmas(first, fits[0], facet, at_block, fitter, seed)
            for pairing, group in groups.items():
                if len(group) > 1:
                    own = Fitter(
                        stores[group[0]], by_store[group[0]][number], recipe, journal=journal, workers=workers, bar=bar
                    )
                    rows.append(
                        _draws([stores[at] for at in group], [fits[at] for at in group], facet, own, seed).assign(
                            pair_noise=pairing
                        )
                    )
                    rows.append(variance_ratios(fits[group[0]], facet, seed).assign(pair_noise=pairing))
            rows += _pairing(groups, fits, facet, seed)
            table = pd.concat(rows, ignore_index=True)
            common = common_columns(first, facet, recipe, seed)
            tables.append(table.assign(**{name: value for name, value in common.items() if name not in table}))
    table = pd.concat(tables, ignore_index=True)
    table = table.reindex(columns=list(COLUMNS))
    table["pair_noise"] = table["pair_noise"].astype(object).fillna(_pair_noise(first))
    table["depth"] = (table["block"].astype(float) + 1) / first.num_blocks
    table["gain_p_value_holm"] = table.groupby(["facet", "kind"])["gain_p_value"].transform(
        lambda p: p if p.isna().all() else holm(p.to_numpy(dtype=float))
    )
    return table.astype({"block": "Int64", "draws": "Int64"})


def _job(
    store: FeatureSource,
    place: Place,
    draws: Sequence[FeatureSource],
    recipe: Recipe,
    facet: Facet,
    sides: Sequence[Facet],
) -> Job:
    """Fit one place; the first store of several draws also scores its test items under each."""
    name = "/".join(map(str, place))
    if not draws:
        return Job(name, partial(read_site, store, place))
    seeds = ",".join(map(identity_of, draws))
    return Job(f"{name}|{seeds}", partial(read_site, store, place), partial(redrawn, draws, place, recipe, sides))


def _cells(fits: dict[Place, Fit], facet: Facet, at_block: dict[tuple, list[Place]], seed: int) -> pd.DataFrame:
    asked = list(fits)
    rows = pd.DataFrame([place._asdict() for place in asked]).assign(
        kind="cell", metric="accuracy", cv_accuracy=[fits[place].cv_accuracy for place in asked], best_sigma=False
    )
    matrix = np.stack([fits[place].outcomes for place in asked], axis=1)
    rows = rows.assign(**accuracies(matrix, facet.test.prompts, seed))
    for candidates in at_block.values():
        at = [asked.index(place) for place in candidates]
        rows.loc[asked.index(_best(fits, candidates)), "best_sigma"] = True
        rows.loc[at, "agreement"] = _agreement([fits[place] for place in candidates], facet, seed)
    return rows


def _agreement(fits: Sequence[Fit], facet: Facet, seed: int) -> np.ndarray:
    """Say how often each is the best in bootstrap resamples of training prompts; a tie is shared."""
    y = facet.train.choices
    right = np.stack([outcomes(fit.train_margins, y) for fit in fits], axis=1)
    if not np.isfinite(right[y != 0.5]).all() or any(np.isnan(fit.train_margins).any() for fit in fits):
        return np.full(len(fits), np.nan)
    by_group, _ = sums_by_group(right, facet.train.prompts)
    drawn = resampled_means(by_group, RESAMPLES, seed, joint=True)
    wins = drawn >= drawn.max(axis=1, keepdims=True) - 1e-12
    return (wins / wins.sum(axis=1, keepdims=True)).mean(axis=0)


def _sigmas(
    store: FeatureSource,
    fits: dict[Place, Fit],
    facet: Facet,
    at_block: dict[tuple, list[Place]],
    fitter: Fitter,
    seed: int,
) -> list[pd.DataFrame]:
    """Put all noise levels of a block together, by rewards and by features."""
    several = {key: candidates for key, candidates in at_block.items() if len(candidates) > 1}
    if not several:
        return []
    jobs = [
        Job(
            "/".join(map(str, (*key, *(place.sigma for place in candidates)))),
            partial(_side_by_side, store, candidates),
        )
        for key, candidates in several.items()
    ]
    together = fitter.fit(jobs)
    y, prompts = facet.test.choices, facet.test.prompts
    mine = {
        "rewards": [_of_rewards([fits[place] for place in candidates], y) for candidates in several.values()],
        "features": [fit.outcomes for fit in together],
    }
    reference = np.stack([fits[_best(fits, candidates)].outcomes for candidates in several.values()], axis=1)
    where = pd.DataFrame([dict(zip(("stream", "reduction", "block"), key, strict=True)) for key in several])
    return [
        where.assign(
            kind="sigmas",
            method=method,
            metric="accuracy",
            **accuracies(np.stack(right, 1), prompts, seed),
            **gains(np.stack(right, axis=1), reference, prompts, seed),
        )
        for method, right in mine.items()
    ]


def _draws(
    stores: Sequence[FeatureSource], fits: Sequence[dict[Place, Fit]], facet: Facet, fitter: Fitter, seed: int
) -> pd.DataFrame:
    """Put 2, 3, … draws together, by rewards; and all of them by features."""
    asked = list(fits[0])
    y, prompts = facet.test.choices, facet.test.prompts
    alone = np.stack([np.mean([own[place].outcomes for own in fits], axis=0) for place in asked], axis=1)
    drawn = ",".join(map(identity_of, stores))
    jobs = [Job("/".join(map(str, place)) + f"|mean|{drawn}", partial(_averaged, stores, place)) for place in asked]
    by_features = [fit.outcomes for fit in fitter.fit(jobs)]
    where = pd.DataFrame([place._asdict() for place in asked])
    parts = []
    for count in range(2, len(stores) + 1):
        right = [_of_rewards([own[place] for own in fits[:count]], y) for place in asked]
        kinds = [("rewards", right)] + ([("features", by_features)] if count == len(stores) else [])
        for method, columns in kinds:
            matrix = np.stack(columns, axis=1)
            found = accuracies(matrix, prompts, seed) | gains(matrix, alone, prompts, seed)
            parts.append(where.assign(kind="draws", method=method, draws=count, metric="accuracy", **found))
    return pd.concat(parts, ignore_index=True)


def _pairing(
    groups: dict[str, list[int]], fits: dict[int, dict[Place, Fit]], facet: Facet, seed: int
) -> list[pd.DataFrame]:
    """Compare shared with independent noise, each the mean over its draws."""
    if set(groups) != {"independent", "shared"}:
        return []
    asked = list(fits[0])
    prompts = facet.test.prompts
    shared, independent = (
        np.stack([np.mean([fits[at][place].outcomes for at in groups[name]], axis=0) for place in asked], axis=1)
        for name in ("shared", "independent")
    )
    return [
        pd.DataFrame([place._asdict() for place in asked]).assign(
            kind="pairing",
            pair_noise="shared",
            metric="accuracy",
            **accuracies(shared, prompts, seed),
            **gains(shared, independent, prompts, seed),
        )
    ]


def _of_rewards(fits: Sequence[Fit], y: np.ndarray) -> np.ndarray:
    return outcomes(np.mean([fit.log_odds for fit in fits], axis=0), y)


def _side_by_side(store: FeatureSource, asked: Sequence[Place]) -> np.ndarray:
    return np.concatenate([_flat(read_site(store, place)) for place in asked], axis=1)


def _averaged(stores: Sequence[FeatureSource], place: Place) -> np.ndarray:
    ids = np.asarray(stores[0].item_ids)
    total = np.zeros_like(_flat(read_site(stores[0], place)), dtype=np.float64)
    for store in stores:
        row = pd.Index(np.asarray(store.item_ids)).get_indexer(ids)
        total += _flat(read_site(store, place))[row]
    return (total / len(stores)).astype(np.float32)


def _flat(features: np.ndarray) -> np.ndarray:
    return features.reshape(len(features), -1)


def _best(fits: dict[Place, Fit], candidates: Sequence[Place]) -> Place:
    return max(candidates, key=lambda place: fits[place].cv_accuracy)


def _by_block(asked: Sequence[Place]) -> dict[tuple, list[Place]]:
    found: dict[tuple, list[Place]] = {}
    for place in asked:
        found.setdefault((place.stream, place.reduction, place.block), []).append(place)
    return found


def _pair_noise(store: FeatureSource) -> str:
    return str(store.attributes.get("pair_noise", "independent"))


def _by_pairing(stores: Sequence[FeatureSource]) -> dict[str, list[int]]:
    """Group stores by whether pairs share their noise, and refuse stores that do not belong together."""
    if not stores:
        raise UserError("There is no store to measure; give one, and more for other draws of the noise.")
    groups: dict[str, list[int]] = {}
    seen: dict[tuple[Any, Any], str] = {}
    one = stores[0].attributes
    for at, store in enumerate(stores):
        other: dict[str, Any] = dict(store.attributes)
        different = [key for key in _SAME if key in one and key in other and one[key] != other[key]]
        if different:
            key = different[0]
            raise UserError(
                f"{_name(store)} differs from {_name(stores[0])} in more than its noise: {key} is "
                f"{other[key]!r} and {one[key]!r}; extract both with the same settings."
            )
        if inputs := different_inputs(stores[0], store):
            raise UserError(
                f"{_name(store)} differs from {_name(stores[0])} in more than its noise: {inputs}; extract "
                f"both from the same data."
            )
        drawn = (_pair_noise(store), other.get("seed"))
        if drawn in seen:
            raise UserError(
                f"{_name(store)} and {seen[drawn]} hold the same noise (seed {drawn[1]}, {drawn[0]}); "
                f"extract one with another --seed."
            )
        seen[drawn] = _name(store)
        groups.setdefault(drawn[0], []).append(at)
    return groups


def _name(store: FeatureSource) -> str:
    path = getattr(store, "path", None)
    return f"seed {store.attributes.get('seed')}" if path is None else str(path.name)
