"""Controls: what remains of the trained backbone's accuracy without each of its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from probing.analysis.controls.shortcuts import fit_shortcuts
from probing.analysis.engine import (
    ABOVE,
    ALL,
    BELOW,
    LATENTS,
    LOGISTIC,
    OPEN,
    SHUFFLED,
    TOO_LITTLE,
    WORDS,
    CellResults,
    Context,
    FeatureSource,
    Fitter,
    Recipe,
    Run,
    Sites,
    StoreIdentity,
    Tables,
    accuracies,
    average_draws,
    check_comparable,
    column_names,
    common_columns,
    correct,
    facets_of,
    format_difference,
    format_p_value,
    gains,
    measure_cells,
    measure_latents,
)
from probing.analysis.reward_curve.comparisons import describe_cell
from probing.analysis.reward_curve.curve import SHUFFLES
from probing.errors import UserError
from probing.preferences.audit import item_image_stats
from probing.result_tables import best_cell
from probing.statistics import paired_difference

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
"""Every control with its label in a sentence, in the order of the table; named properties follow."""

COLUMNS = column_names(
    "model data split facet control kind site stream reduction sigma block metric value ci_low ci_high p_value "
    "p_value_holm family verdict draws draw_low draw_high difference difference_low difference_high "
    "difference_p_value difference_p_value_holm difference_family difference_verdict statement cv_accuracy n_pairs "
    "n_prompts n_train_pairs ceiling probe seed"
)
"""Columns of the table: one row a facet and control. ``p_value`` and ``verdict`` compare it with chance, of all but
shuffled choices. ``difference`` is the trained backbone's accuracy less the control's, on the same pairs. Both kinds of
p-values are corrected by Holm over the table. ``kind`` is trained, part, control or shortcut. Random-initialised and
shuffled rows are means over ``draws``; ``draw_low`` and ``draw_high`` bound 95% of single shuffles, and all of the
random weights."""

_PARTS, _SHORTCUTS = ("image stream", "text stream"), ("image stats", "size", "source model")
_SITE = ("stream", "reduction", "sigma", "block")
_DRAWS = ("draws", "draw_low", "draw_high")
_CHANCE = {
    ABOVE: "above chance",
    BELOW: "below chance",
    OPEN: "not distinguished from chance",
    TOO_LITTLE: "too few prompts for a verdict",
}


@dataclass(frozen=True)
class ControlSettings:
    """Controls beyond those of the stores.

    Attributes:
        shuffles: Refits of the trained probe to shuffled training choices; 0, or 2 and more.
        image_stats: Open the pictures of the data and fit a probe on size, brightness and the like.
        shortcuts: Properties that the pairs state of both items, as NAME_first and NAME_second; a probe reads each
            alone, and of a number that may be 0 also whether it is above.
    """

    shuffles: int = SHUFFLES
    image_stats: bool = False
    shortcuts: tuple[str, ...] = ()


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
    cell. Random-initialised backbones are averaged over the draws of weights before their best cell is selected.

    Args:
        stores: The trained backbone's, and any of: random-initialised (one a draw), extracted with foreign
            prompts, with empty ones. The store's settings decide which is which.
        pairs: As for :func:`probing.analysis.engine.measure_cells`; with ``source_model_first`` and ``_second`` the
            names of the source models are a shortcut too.
        settings: Shuffles, and properties of pairs.
        image_stats: ``item_id`` and numbers of each picture, of :func:`probing.preferences.audit.item_image_stats`.
        sites: Which sites.
        facets: Which facets; all if None.
        recipe: The probe of every control.
        run: How to run.

    Returns:
        One row a facet and control, with the columns :data:`COLUMNS`.

    Raises:
        UserError: No trained store or two, two of the same prompts, stores that do not belong together, and what
            :func:`probing.analysis.engine.measure_cells` refuses.
    """
    run, settings = run or Run(), settings or ControlSettings()
    shuffles = settings.shuffles
    roles = _roles(stores)
    (trained,) = roles.pop(TRAINED)
    options: dict[str, Any] = {"recipe": recipe, "run": run}
    options |= {"sites": sites, "facets": facets}
    results = {TRAINED: measure_cells(trained, pairs, shuffles=shuffles, **options)}
    for role, draws in roles.items():
        results[role] = average_draws([measure_cells(store, pairs, **options) for store in draws])
    if reductions := sites.latent_reductions_of(trained):
        results[LATENTS] = measure_latents(trained, pairs, reductions=reductions, facets=facets, recipe=recipe, run=run)
    tables = []
    for facet in facets_of(trained, pairs, facets):
        rows, columns = [], []
        for control, cell, right in _best_cells(results, facet.name):
            columns.append(right)
            row = {name: cell[name] for name in (*_SITE, *_DRAWS, "cv_accuracy")}
            rows.append({"control": control, **row, "site": describe_cell(cell)})
        if shuffles > 0:
            cell, right = _shuffled_cell(results[TRAINED], facet.name, rows[0])
            columns.append(right)
            row = {name: cell[name] for name in (*_SITE, *_DRAWS, "value", "ci_low", "ci_high")}
            rows.append({"control": SHUFFLED, **row, "site": rows[0]["site"]})
        # Shortcuts are a few numbers an item, whatever probe reads the features.
        fitter = Fitter(trained, [facet], LOGISTIC, run)
        facet_pairs = pd.concat([facet.train.table, facet.test.table])
        item_ids = np.asarray(trained.item_ids)
        for name, fit in fit_shortcuts(fitter, item_ids, facet_pairs, image_stats, settings.shortcuts).items():
            rows.append({"control": name, "site": "", "cv_accuracy": fit.cv_accuracy})
            columns.append(fit.outcomes)
        matrix, prompts = np.stack(columns, axis=1), facet.test.prompts
        trained_right = np.broadcast_to(matrix[:, :1], matrix.shape)
        table = pd.DataFrame(rows)
        # Shuffled choices have an interval of their own, for other shuffles too.
        for name, values in accuracies(matrix, prompts).items():
            table[name] = np.where(table["control"] == SHUFFLED, table.get(name, np.nan), values)
        chance = paired_difference(matrix, np.where(np.isnan(matrix), np.nan, 0.5), prompts)
        table = table.assign(p_value=chance.p_value, smallest_p_value=chance.smallest_p_value)
        table = table.assign(**gains(trained_right, matrix, prompts, "difference"))
        tables.append(table.assign(**common_columns(trained, facet, recipe, run.seed)))
    return _finish(pd.concat(tables, ignore_index=True))


def _best_cells(results: dict[str, CellResults], facet: str) -> list[tuple[str, pd.Series, np.ndarray]]:
    """Select the best cell of the trained backbone, of each of its streams, and of each control."""
    selected = []
    for role, of_role in results.items():
        cells = of_role.table[(of_role.table["facet"] == facet) & (of_role.table["control"] != SHUFFLED)]
        right = of_role.outcomes[of_role.outcomes["facet"] == facet]
        groups = [(role, cells)]
        if role == TRAINED and cells["stream"].nunique() > 1:
            groups += [(f"{stream} stream", part) for stream, part in cells.groupby("stream")]
        for name, part in groups:
            cell = best_cell(part)
            selected.append((name, cell, right[cell["cell"]].to_numpy()))
    return selected


def _shuffled_cell(results: CellResults, facet: str, best: Mapping[str, Any]) -> tuple[pd.Series, np.ndarray]:
    """Return the shuffled measurement of the trained backbone's best cell, and its mean outcomes."""
    rows = results.table[(results.table["control"] == SHUFFLED) & (results.table["facet"] == facet)]
    for name in _SITE:
        rows = rows[rows[name] == best[name]]
    cell = rows.iloc[0]
    return cell, results.outcomes.loc[results.outcomes["facet"] == facet, cell["cell"]].to_numpy()


def _finish(table: pd.DataFrame) -> pd.DataFrame:
    """Order the controls, correct p-values and state the verdicts."""
    order = list(dict.fromkeys([*LABELS, *table["control"]]))
    table = table.assign(_order=table["control"].map(order.index)).sort_values(["facet", "_order"], kind="stable")
    table = table.reset_index(drop=True)
    shortcuts = {*_SHORTCUTS, *(name for name in order if name not in LABELS)}
    kinds = dict.fromkeys(_PARTS, "part") | dict.fromkeys(shortcuts, "shortcut") | {TRAINED: TRAINED}
    table["kind"] = table["control"].map(kinds).fillna("control")
    # A probe of shuffled choices has a random direction: it is no question whether it is above chance.
    table.loc[table["control"] == SHUFFLED, "p_value"] = np.nan
    table = correct(table.assign(above_chance=table["value"] - 0.5), "above_chance")
    trained = table["control"] == TRAINED
    best_site = table[trained].set_index("facet")["site"]
    itself = (table["kind"] == "part") & (table["site"] == table["facet"].map(best_site))
    columns = [name for name in table if str(name).startswith("difference")]
    table.loc[trained | itself, columns] = np.nan
    table = correct(table, "difference", prefix="difference_")
    table["statement"] = [_statement(row) for row in table.to_dict("records")]
    return table.reindex(columns=list(COLUMNS)).astype({"block": "Int64", "draws": "Int64"})


def _statement(row: Mapping[Any, Any]) -> str:
    """State whether the control is above chance, and whether the trained backbone is above the control."""
    accuracy = f"{100 * row['value']:.1f}% [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"
    statement = f"{row['facet']}: {LABELS.get(row['control'], row['control'])}: "
    statement += accuracy if row["control"] == SHUFFLED else f"{_CHANCE[row['verdict']]}, {accuracy}"
    if row["control"] == SHUFFLED or (row["control"] == "random-init" and row["draws"] > 1):
        low, high = (f"{100 * row[name]:.1f}" for name in ("draw_low", "draw_high"))
        statement += f", mean of {row['draws']} draws from {low} to {high}"
    if row["control"] == TRAINED:
        return f"{statement} ({row['site']})."
    if pd.isna(row["difference_verdict"]):
        return f"{statement}; the trained backbone's best cell is one of these."
    difference = format_difference(*(row[name] for name in ("difference", "difference_low", "difference_high")))
    p_value = format_p_value(row["difference_verdict"], row["difference_p_value_holm"])
    return f"{statement}; the trained backbone {WORDS[row['difference_verdict']]} it, {difference}{p_value}."


def _roles(stores: Sequence[FeatureSource]) -> dict[str, list[FeatureSource]]:
    """Read from each store which control it is; the trained store comes first, alone in its list."""
    roles: dict[str, list[FeatureSource]] = {}
    for store in stores:
        identity = StoreIdentity(store)
        if identity.random_init and identity.prompt_rule != "own":
            raise UserError(
                f"A store is random-initialised and has {identity.prompt_rule} prompts; change one thing at a time."
            )
        role = identity.control.replace("-prompt", " prompt")
        if role in roles and not identity.random_init:
            raise UserError(f"Two stores are {role}; give one of each.")
        roles.setdefault(role, []).append(store)
    if TRAINED not in roles:
        raise UserError("None of the stores is of a trained backbone with its own prompts; give that one too.")
    trained = roles.pop(TRAINED)
    for role, of_role in roles.items():
        # Another seed of the weights is another seed of the noise.
        apart = ("weights", "prompts", *(["noise"] if role == "random-init" else []))
        for control in of_role:
            check_comparable(trained[0], control, apart_from=apart)
    return {TRAINED: trained, **roles}


def run_controls(context: Context, settings: ControlSettings) -> Tables:
    """Measure the controls of the stores, and shortcuts of the data's pictures if requested."""
    image_stats = None
    if settings.image_stats:
        assert context.data is not None
        image_stats = item_image_stats(context.data, progress=context.run.progress)
    table = measure_controls(context.stores, context.pairs, settings, image_stats=image_stats, **context.selections)
    return {"controls": table}
