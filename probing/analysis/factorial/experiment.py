"""Factorial design: every head on every stream, at every noise level, in every model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.analysis.engine import (
    ALL,
    LOGISTIC,
    Context,
    Curve,
    FeatureSource,
    Fitter,
    Job,
    Recipe,
    Run,
    Site,
    Sites,
    StoreIdentity,
    Tables,
    accuracies,
    check_models,
    column_names,
    common_columns,
    facets_of,
    flatten,
    read_site,
)
from probing.analysis.factorial.effects import decide, effects
from probing.analysis.scaling.model_sizes import size_of
from probing.errors import UserError
from probing.probes import make_probe
from probing.progress import progress

HEADS = ("logistic", "mlp", "attention")
DEPTHS = tuple((block + 1) / 38 for block in (15, 23, 28, 37))
"""Depths of the four blocks of the paper's head."""
_SHARED = ("data", "split", "facet", "seed", "n_pairs", "n_prompts", "n_train_pairs", "ceiling")
COLUMNS = column_names(
    "model data split facet reduction kind head stream sigma factor level against other_factor other_level "
    "other_against blocks channels parameters metric value ci_low ci_high p_value p_value_holm family verdict "
    "statement cv_accuracy n_pairs n_prompts n_train_pairs ceiling seed"
)
"""Columns of the table.

``kind``: ``cell`` (one head on one stream or both, at one noise level, in one model; ``value`` is its accuracy), or an
effect, whose ``value`` is a difference of accuracies: ``main``, ``interaction``, ``simple``, ``reversal`` (see
:func:`probing.analysis.factorial.effects.effects`). Holm's families are the effects of one kind and facet.
"""


@dataclass(frozen=True)
class FactorialSettings:
    """The levels of the design; streams, noise levels and models are those of the stores.

    Attributes:
        heads: Kinds of probe; to attention, each block's mean is a token.
        depths: Relative depths in (0, 1] of the blocks that every head reads together; default: the paper's four.

    Raises:
        UserError: A head twice, no head, or a depth outside (0, 1].
    """

    heads: tuple[str, ...] = HEADS
    depths: tuple[float, ...] = DEPTHS

    def __post_init__(self) -> None:
        if not self.heads or len(set(self.heads)) < len(self.heads):
            raise UserError(f"Got the heads {', '.join(self.heads) or 'none'}, expected each once.")
        for head in self.heads:
            Recipe(probe=head)
        for depth in self.depths:
            if not 0 < depth <= 1:
                raise UserError(f"A relative depth is above 0 and up to 1, got {depth:g}.")


class _Condition(NamedTuple):
    """One level of stream and noise level: arrays of the store, as (stream, reduction), read at one noise level."""

    stream: str
    arrays: list[tuple[str, str]]
    sigma: float


def measure_factorial(
    stores: Sequence[FeatureSource],
    pairs: pd.DataFrame,
    settings: FactorialSettings | None = None,
    *,
    sites: Sites = ALL,
    facets: Sequence[str] | None = None,
    recipe: Recipe = LOGISTIC,
    run: Run | None = None,
) -> pd.DataFrame:
    """Fit every head on every stream and on all of them, at every noise level, in every model; measure the effects.

    Every cell reads the same relative depths, so that nothing is selected. Models are ordered by parameters.

    Args:
        stores: Features of the same items in trained models.
        pairs: As for :func:`probing.analysis.engine.measure_cells`; each store must hold their items.
        settings: Heads and depths.
        sites: Which streams, reductions and noise levels, of those that all stores share.
        facets: Which facets; all if None.
        recipe: Labels, weights and device of every head; its probe is not used.
        run: How to run.

    Returns:
        One row a cell or effect, with the columns :data:`COLUMNS`.

    Raises:
        UserError: Nothing that varies, random-initialised stores, and what
            :func:`probing.analysis.scaling.measure_scaling` refuses.
    """
    run, settings = run or Run(), settings or FactorialSettings()
    if sites.blocks is not None:
        raise UserError("The factorial design reads blocks by depth; give --depths and leave out --blocks.")
    check_models(stores)
    if fresh := [store for store in stores if StoreIdentity(store).random_init]:
        raise UserError(f"The store {StoreIdentity(fresh[0]).label} has random weights; give stores of trained ones.")
    models = [str(store.attributes.get("model")) for store in stores]
    if twice := [model for model in models if models.count(model) > 1]:
        raise UserError(f"Two stores are of {twice[0]}, and a model is one level of the design; give each once.")
    stores = sorted(stores, key=lambda store: size_of(store).parameters)
    conditions = _conditions(stores, sites)
    n_cells = len(conditions) * len(stores) * len(settings.heads)
    if n_cells == 1:
        raise UserError("Nothing varies: give several heads, streams, noise levels or stores.")
    facets_by_store = [facets_of(store, pairs, facets) for store in stores]
    rows: list[list[dict[str, Any]]] = [[] for _ in facets_by_store[0]]
    right: list[list[np.ndarray]] = [[] for _ in facets_by_store[0]]
    with progress(n_cells * len(rows), "factorial", "fits", enabled=run.progress) as bar:
        for (store, of_store), head in product(zip(stores, facets_by_store, strict=True), settings.heads):
            of_head = replace(recipe, probe=head, scaling=_scaling_of(head, recipe), code_length=False)
            read = [_sites(store, condition, settings.depths) for condition in conditions]
            jobs = [Job("+".join(map(str, together)), partial(_side_by_side, store, together)) for together in read]
            fits = Fitter(store, of_store, of_head, run, bar=bar).fit(jobs)
            for condition, together, of_job in zip(conditions, read, fits, strict=True):
                for facet, fit, of_facet, outcomes in zip(of_store, of_job, rows, right, strict=True):
                    of_facet.append(
                        {
                            **common_columns(store, facet, of_head, run.seed),
                            "kind": "cell",
                            "head": head,
                            "stream": condition.stream,
                            "reduction": "+".join(dict.fromkeys(reduction for _, reduction in condition.arrays)),
                            "sigma": condition.sigma,
                            "blocks": "+".join(dict.fromkeys(str(site.block) for site in together)),
                            "channels": fit.channels,
                            "parameters": size_of(store).parameters,
                            "cv_accuracy": fit.cv_accuracy,
                        }
                    )
                    outcomes.append(fit.outcomes)
    tables = []
    for facet, of_facet, outcomes in zip(facets_by_store[0], rows, right, strict=True):
        matrix = np.stack(outcomes, axis=1)
        cells = pd.DataFrame(of_facet).assign(**accuracies(matrix, facet.test.prompts))
        shared = {name: cells[name].iloc[0] for name in _SHARED}
        tables += [cells, effects(cells, matrix, facet.test.prompts).assign(**shared)]
    table = decide(pd.concat(tables, ignore_index=True).reindex(columns=[*COLUMNS, "smallest_p_value"]))
    return table[list(COLUMNS)].astype({"channels": "Int64"})


def _conditions(stores: Sequence[FeatureSource], sites: Sites) -> list[_Condition]:
    """List the streams that all stores share, alone and together, at each noise level; a stream by all its arrays."""
    of_stores = [{curve[:3] for curve in sites.curves_of(store)} for store in stores]
    curves = [curve[:3] for curve in sites.curves_of(stores[0])]
    shared = [key for key in curves if all(key in of_store for of_store in of_stores)]
    if not shared:
        raise UserError("The stores share no stream, reduction and noise level; extract them with the same ones.")
    arrays = list(dict.fromkeys((stream, reduction) for stream, reduction, _ in shared))
    levels = {stream: [array for array in arrays if array[0] == stream] for stream in dict.fromkeys(dict(arrays))}
    if len(levels) > 1:
        levels["+".join(levels)] = arrays
    sigmas = list(dict.fromkeys(sigma for _, _, sigma in shared))
    return [_Condition(stream, levels[stream], sigma) for stream, sigma in product(levels, sigmas)]


def _sites(store: FeatureSource, condition: _Condition, depths: Sequence[float]) -> list[Site]:
    """List the sites of a head, array by array; two depths may be nearest to one block."""
    sites: list[Site] = []
    for stream, reduction in condition.arrays:
        curve = Curve(stream, reduction, condition.sigma, tuple(store.blocks_of(stream)))
        blocks = dict.fromkeys(curve.block_at(depth, store.num_blocks) for depth in depths)
        sites += [curve.site(block) for block in blocks]
    return sites


def _side_by_side(store: FeatureSource, sites: Sequence[Site]) -> Float[np.ndarray, "item ..."]:
    """Join sites as tokens; as channels if they differ in width, which no head that attends to tokens can read."""
    features = [read_site(store, site) for site in sites]
    tokens = [part if part.ndim == 3 else part.reshape(len(part), -1, part.shape[-1]) for part in features]
    if len({part.shape[-1] for part in tokens}) == 1:
        return np.concatenate(tokens, axis=1)
    return np.concatenate([flatten(part) for part in features], axis=1)


def _scaling_of(head: str, recipe: Recipe) -> str:
    """Return the requested scaling for a head that has a choice; networks standardise."""
    return recipe.scaling if "scaling" in make_probe(head).get_params() else Recipe.scaling


def run_factorial(context: Context, settings: FactorialSettings) -> Tables:
    """Measure the design on all stores."""
    return {"factorial": measure_factorial(context.stores, context.pairs, settings, **context.selections)}


def effect_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Select the effects, which have a figure of their own."""
    return table[table["kind"] != "cell"]


def report_factorial(tables: Tables) -> list[str]:
    """State the main effects of every pair together, and how far the setting decides which model is better."""
    table = tables["factorial"]
    facet = "all" if "all" in set(table["facet"]) else table["facet"].iloc[0]
    rows = table[(table["facet"] == facet) & table["kind"].isin(["main", "reversal"])]
    return [f"{facet}: {statement}" for statement in rows["statement"]]
