"""Controls: what remains of the trained backbone's accuracy without each of its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from probing.analysis.controls.shortcuts import fit_shortcuts
from probing.analysis.engine import (
    ALL,
    LATENTS,
    LOGISTIC,
    CellResults,
    Context,
    Facet,
    FeatureSource,
    Fitter,
    Recipe,
    Run,
    Sites,
    StoreIdentity,
    Tables,
    accuracies,
    check_comparable,
    column_names,
    common_columns,
    facets_of,
    format_difference,
    gains,
    measure_cells,
    measure_latents,
)
from probing.analysis.reward_curve.comparisons import describe_cell
from probing.analysis.reward_curve.curve import SHUFFLES
from probing.errors import UserError
from probing.preferences.audit import item_image_stats
from probing.result_tables import best_cell
from probing.statistics import LEVEL, holm

TRAINED = "trained"
LABELS = {
    TRAINED: "the trained backbone",
    "image stream": "image tokens alone",
    "text stream": "text tokens alone",
    "foreign prompt": "another prompt's words",
    "empty prompt": "no words",
    "random-init": "the random-initialised backbone",
    "latents": "the pooled latents",
    "image stats": "size, brightness and other image statistics",
    "size": "the pictures' size",
    "source model": "the name of the source model",
    "shuffled": "shuffled training choices",
}
"""Every control with its label in a sentence, in the order of the table."""

COLUMNS = column_names(
    "model data split facet control kind site stream reduction sigma block metric value ci_low ci_high difference "
    "difference_low difference_high difference_p_value difference_p_value_holm statement cv_accuracy n_pairs n_prompts "
    "n_train_pairs ceiling probe seed"
)
"""Columns of the table: one row a facet and control. ``difference`` is the trained backbone's accuracy less the
control's, on the same pairs; p-values are corrected by Holm over the table. ``kind`` is trained, part, control or
shortcut."""

_PARTS, _SHORTCUTS = ("image stream", "text stream"), ("image stats", "size", "source model")
_SITE = ("stream", "reduction", "sigma", "block")


@dataclass(frozen=True)
class ControlSettings:
    """Controls beyond those of the stores.

    Attributes:
        shuffles: Number of shuffles of the training choices.
        image_stats: Open the pictures of the data and fit a probe on size, brightness and the like.
    """

    shuffles: int = SHUFFLES
    image_stats: bool = False


def measure_controls(
    stores: Sequence[FeatureSource],
    pairs: pd.DataFrame,
    settings: ControlSettings | None = None,
    *,
    image_stats: pd.DataFrame | None = None,
    sites: Sites = ALL,
    facets: Sequence[str] | None = None,
    recipe: Recipe = LOGISTIC,
    run: Run | None = None,
) -> pd.DataFrame:
    """Compare the best cell of the trained backbone with every control that the stores and data allow.

    Each control gets the best of its cells, selected like the trained one by out-of-fold accuracy on training pairs, so
    that no control is weak for lack of candidates. Only shuffled choices are measured in the trained backbone's best
    cell, as the mean over shuffles.

    Args:
        stores: The trained backbone's, and any of: random-initialised, extracted with foreign prompts, with empty ones.
            The store's settings decide which is which.
        pairs: As for :func:`probing.analysis.engine.measure_cells`; with ``source_model_first`` and ``_second`` the
            names of the source models are a shortcut too.
        settings: Shuffles.
        image_stats: ``item_id`` and numbers of each picture, of :func:`probing.preferences.audit.item_image_stats`.
        sites: Which sites.
        facets: Which facets; all if None.
        recipe: The probe of every control.
        run: How to run.

    Returns:
        One row a facet and control, with the columns :data:`COLUMNS`.

    Raises:
        UserError: No trained store or two, two of the same control, stores that do not belong together, and what
            :func:`probing.analysis.engine.measure_cells` refuses.
    """
    run, shuffles = run or Run(), (settings or ControlSettings()).shuffles
    roles = _roles(stores)
    trained = roles[TRAINED]
    options: dict[str, Any] = {"recipe": recipe, "run": run}
    results = {
        role: measure_cells(store, pairs, sites=sites, facets=facets, **options) for role, store in roles.items()
    }
    if reductions := sites.latent_reductions_of(trained):
        results[LATENTS] = measure_latents(trained, pairs, reductions=reductions, facets=facets, **options)
    tables = []
    for facet in facets_of(trained, pairs, facets):
        rows, columns = [], []
        for control, cell, right in _best_cells(results, facet.name):
            site = {name: cell[name] for name in _SITE}
            rows.append({"control": control, **site, "cv_accuracy": cell["cv_accuracy"], "site": describe_cell(cell)})
            columns.append(right)
        if shuffles > 0:
            columns.append(_shuffled_outcomes(trained, pairs, facet, rows[0], shuffles, options))
            rows.append({**{name: rows[0][name] for name in (*_SITE, "site")}, "control": "shuffled"})
        # Shortcuts are a few numbers an item, whatever probe reads the features.
        fitter = Fitter(trained, [facet], LOGISTIC, run)
        facet_pairs = pd.concat([facet.train.table, facet.test.table])
        for name, fit in fit_shortcuts(fitter, np.asarray(trained.item_ids), facet_pairs, image_stats).items():
            rows.append({"control": name, "site": "", "cv_accuracy": fit.cv_accuracy})
            columns.append(fit.outcomes)
        matrix, prompts = np.stack(columns, axis=1), facet.test.prompts
        trained_right = np.broadcast_to(matrix[:, :1], matrix.shape)
        table = pd.DataFrame(rows).assign(**accuracies(matrix, prompts, run.seed))
        table = table.assign(**gains(trained_right, matrix, prompts, run.seed, "difference"))
        tables.append(table.assign(**common_columns(trained, facet, recipe, run.seed)))
    return _finish(pd.concat(tables, ignore_index=True))


def _best_cells(results: dict[str, CellResults], facet: str) -> list[tuple[str, pd.Series, np.ndarray]]:
    """Select the best cell of the trained backbone, of each of its streams, and of each control."""
    selected = []
    for role, of_role in results.items():
        cells = of_role.table[of_role.table["facet"] == facet]
        right = of_role.outcomes[of_role.outcomes["facet"] == facet]
        groups = [(role, cells)]
        if role == TRAINED and cells["stream"].nunique() > 1:
            groups += [(f"{stream} stream", part) for stream, part in cells.groupby("stream")]
        for name, part in groups:
            cell = best_cell(part)
            selected.append((name, cell, right[cell["cell"]].to_numpy()))
    return selected


def _shuffled_outcomes(
    store: FeatureSource,
    pairs: pd.DataFrame,
    facet: Facet,
    cell: Mapping[str, Any],
    shuffles: int,
    options: Mapping[str, Any],
) -> np.ndarray:
    """Measure one cell with shuffled training choices; the mean over shuffles."""
    site = Sites((cell["stream"],), (cell["reduction"],), (cell["sigma"],), (int(cell["block"]),))
    recipe, run = options["recipe"], options["run"]
    parts = []
    for shuffle in range(shuffles):
        results = measure_cells(
            store,
            pairs,
            sites=site,
            facets=[facet.name],
            recipe=recipe,
            shuffled=True,
            run=replace(run, seed=run.seed + shuffle),
        )
        parts.append(results.outcomes[results.table["cell"].iloc[0]])
    return np.mean(parts, axis=0)


def _finish(table: pd.DataFrame) -> pd.DataFrame:
    """Order the controls, correct p-values and state what the intervals allow."""
    order = list(LABELS)
    table = table.assign(_order=table["control"].map(order.index)).sort_values(["facet", "_order"], kind="stable")
    kinds = dict.fromkeys(_PARTS, "part") | dict.fromkeys(_SHORTCUTS, "shortcut") | {TRAINED: TRAINED}
    table["kind"] = table["control"].map(kinds).fillna("control")
    trained = table["control"] == TRAINED
    table.loc[trained, [name for name in table if str(name).startswith("difference")]] = np.nan
    table["difference_p_value_holm"] = np.nan
    if (~trained).any():
        p_values = table.loc[~trained, "difference_p_value"].to_numpy(dtype=float)
        table.loc[~trained, "difference_p_value_holm"] = holm(p_values)
    best_site = table[trained].set_index("facet")["site"]
    table["statement"] = [_statement(row, best_site[row["facet"]]) for row in table.to_dict("records")]
    return table.reindex(columns=list(COLUMNS)).astype({"block": "Int64"}).reset_index(drop=True)


def _statement(row: Mapping[Any, Any], best_site: str) -> str:
    """State whether the control is above chance, and whether the trained backbone is above the control."""
    if row["ci_low"] > 0.5:
        chance = "above chance"
    elif row["ci_high"] < 0.5:
        chance = "below chance"
    else:
        chance = "not distinguished from chance"
    accuracy = f"{100 * row['value']:.1f}% [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"
    statement = f"{row['facet']}: {LABELS[row['control']]}: {chance}, {accuracy}"
    if row["control"] == TRAINED:
        return f"{statement} ({row['site']})."
    low, high = row["difference_low"], row["difference_high"]
    if row["kind"] == "part" and row["site"] == best_site:
        return f"{statement}; the trained backbone's best cell is one of these."
    if low > 0:
        comparison = "the trained backbone is above it"
    elif high < 0:
        comparison = "the trained backbone is below it"
    else:
        comparison = "the trained backbone is not distinguished from it"
    statement = f"{statement}; {comparison}, {format_difference(row['difference'], low, high)}"
    if (low > 0 or high < 0) and row["difference_p_value_holm"] > LEVEL:
        statement += f", but not after Holm's correction (p = {row['difference_p_value_holm']:.2g})"
    return f"{statement}."


def _roles(stores: Sequence[FeatureSource]) -> dict[str, FeatureSource]:
    """Read from each store which control it is; the trained store comes first."""
    roles: dict[str, FeatureSource] = {}
    for store in stores:
        identity = StoreIdentity(store)
        if identity.random_init and identity.prompt_rule != "own":
            raise UserError(
                f"A store is random-initialised and has {identity.prompt_rule} prompts; change one thing at a time."
            )
        role = identity.control.replace("-prompt", " prompt")
        if role in roles:
            raise UserError(f"Two stores are {role}; give one of each.")
        roles[role] = store
    if TRAINED not in roles:
        raise UserError("None of the stores is of a trained backbone with its own prompts; give that one too.")
    trained = roles.pop(TRAINED)
    for control in roles.values():
        check_comparable(trained, control, apart_from=("weights", "prompts"))
    return {TRAINED: trained, **roles}


def run_controls(context: Context, settings: ControlSettings) -> Tables:
    """Measure the controls of the stores, and shortcuts of the data's pictures if requested."""
    image_stats = None
    if settings.image_stats:
        assert context.data is not None
        image_stats = item_image_stats(context.data, progress=context.run.progress)
    table = measure_controls(context.stores, context.pairs, settings, image_stats=image_stats, **context.selections)
    return {"controls": table}
