"""Controls and floors on one page: what is left of the trained backbone's accuracy without each thing it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probing.analysis.cells import fit_cells, fit_latents
from probing.analysis.fits import Fitter, accuracies, common_columns, gains, points
from probing.analysis.pairs import Facet, facets_of
from probing.analysis.recipe import LOGISTIC, Recipe
from probing.analysis.results import CellResults
from probing.analysis.reward_curve import SHUFFLES, check_comparable
from probing.analysis.shortcuts import fit_shortcuts
from probing.analysis.source import FeatureSource
from probing.errors import UserError
from probing.result_tables import best_cell
from probing.statistics import LEVEL, holm

TRAINED = "trained"
SAID = {
    TRAINED: "the trained backbone",
    "image stream": "image tokens alone",
    "text stream": "text tokens alone",
    "foreign prompt": "another prompt's words",
    "empty prompt": "no words",
    "random-init": "the random-initialised backbone",
    "latents": "the pooled latents",
    "image stats": "size, brightness and other image statistics",
    "size": "the pictures' size",
    "source model": "the name of who painted them",
    "shuffled": "shuffled training choices",
}
"""Every control, in the order of the page, and how a sentence calls it."""

COLUMNS = (
    "model",
    "data",
    "split",
    "facet",
    "control",
    "kind",
    "place",
    "stream",
    "reduction",
    "sigma",
    "block",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "difference",
    "difference_low",
    "difference_high",
    "difference_p_value",
    "difference_p_value_holm",
    "statement",
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
"""Of the table: one row a facet and control. ``difference`` is the trained backbone's accuracy less the control's, on
the same pairs; p-values are corrected by Holm over the table. ``kind`` is trained, part, control or shortcut."""

_PARTS, _SHORTCUTS = ("image stream", "text stream"), ("image stats", "size", "source model")


def controls(
    stores: Sequence[FeatureSource],
    pairs: pd.DataFrame,
    *,
    image_stats: pd.DataFrame | None = None,
    streams: Sequence[str] | None = None,
    reductions: Sequence[str] | None = None,
    sigmas: Sequence[float] | None = None,
    blocks: Sequence[int] | None = None,
    facets: Sequence[str] | None = None,
    recipe: Recipe = LOGISTIC,
    shuffles: int = SHUFFLES,
    seed: int = 0,
    workers: int = 1,
    journal: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Set the best cell of the trained backbone beside every control that the stores and data allow.

    Each control is given the best of its own cells, chosen as the trained one is by out-of-fold accuracy on training
    pairs: none is weak for want of choice. Shuffled choices alone are measured in the trained backbone's best cell, by
    the mean over shuffles.

    Args:
        stores: The trained backbone's, and any of: random-initialised, extracted with foreign prompts, with empty ones.
            Which is which is read from them.
        pairs: As for :func:`probing.analysis.fit_cells`; with ``source_model_first`` and ``_second`` the names of the
            source models are a shortcut too.
        image_stats: ``item_id`` and numbers of each picture, of :func:`probing.preferences.audit.item_image_stats`.
        streams: Which streams; all if None. Likewise the next four.
        reductions: Which reductions.
        sigmas: Which noise levels.
        blocks: Which blocks.
        facets: Which facets.
        recipe: The probe, the same for all.
        shuffles: How many shuffles of the training choices.
        seed: Of shuffles and bootstrap.
        workers: As for :func:`probing.analysis.fit_cells`.
        journal: As for :func:`probing.analysis.fit_cells`.
        progress: Whether to show progress bars, on a terminal.

    Returns:
        One row a facet and control, with the columns :data:`COLUMNS`.

    Raises:
        UserError: No trained store or two, two of the same control, stores that do not belong together, and what
            :func:`probing.analysis.fit_cells` refuses.
    """
    roles = _roles(stores)
    trained = roles[TRAINED]
    told: dict[str, Any] = {
        "facets": facets,
        "recipe": recipe,
        "workers": workers,
        "journal": journal,
        "progress": progress,
        "reductions": reductions,
    }
    where: dict[str, Any] = {"streams": streams, "sigmas": sigmas, "blocks": blocks}
    measured = {role: fit_cells(store, pairs, seed=seed, **told, **where) for role, store in roles.items()}
    if names := [name for name in trained.latent_reductions() if reductions is None or name in reductions]:
        measured["latents"] = fit_latents(trained, pairs, seed=seed, **{**told, "reductions": names})
    tables = []
    for facet in facets_of(trained, pairs, facets):
        rows, columns = [], []
        for control, cell, right in _cells(measured, facet.name):
            rows.append(
                {
                    "control": control,
                    **{k: cell[k] for k in ("stream", "reduction", "sigma", "block")},
                    "cv_accuracy": cell["cv_accuracy"],
                    "place": _place(cell),
                }
            )
            columns.append(right)
        own = rows[0]
        if shuffles > 0:
            columns.append(_shuffled(trained, pairs, facet, own, shuffles, seed, told))
            rows.append(
                {**{k: own[k] for k in ("stream", "reduction", "sigma", "block", "place")}, "control": "shuffled"}
            )
        own_pairs = pd.concat([facet.train.table, facet.test.table])
        # Looks are a few numbers an item, whatever reads the features.
        fitter = Fitter(trained, facet, LOGISTIC, journal=journal)
        for name, fit in fit_shortcuts(fitter, np.asarray(trained.item_ids), own_pairs, image_stats).items():
            rows.append({"control": name, "place": "", "cv_accuracy": fit.cv_accuracy})
            columns.append(fit.outcomes)
        matrix, prompts = np.stack(columns, axis=1), facet.test.prompts
        trained_right = np.broadcast_to(matrix[:, :1], matrix.shape)
        table = pd.DataFrame(rows).assign(**accuracies(matrix, prompts, seed))
        table = table.assign(**gains(trained_right, matrix, prompts, seed, "difference"))
        tables.append(table.assign(**common_columns(trained, facet, recipe, seed)))
    return _page(pd.concat(tables, ignore_index=True))


def _cells(measured: dict[str, CellResults], facet: str) -> list[tuple[str, pd.Series, np.ndarray]]:
    """Choose the best cell of the trained backbone, of each of its streams, and of each control."""
    found = []
    for role, results in measured.items():
        cells = results.table[results.table["facet"] == facet]
        right = results.outcomes[results.outcomes["facet"] == facet]
        groups = [(role, cells)]
        if role == TRAINED and cells["stream"].nunique() > 1:
            groups += [(f"{stream} stream", part) for stream, part in cells.groupby("stream")]
        for name, part in groups:
            cell = best_cell(part)
            found.append((name, cell, right[cell["cell"]].to_numpy()))
    return found


def _shuffled(
    store: FeatureSource,
    pairs: pd.DataFrame,
    facet: Facet,
    own: dict[str, Any],
    shuffles: int,
    seed: int,
    told: dict[str, Any],
) -> np.ndarray:
    """Measure the trained backbone's best cell with training choices dealt out anew; the mean over shuffles."""
    asked = {**told, "facets": [facet.name], "reductions": [own["reduction"]]}
    parts = [
        fit_cells(
            store,
            pairs,
            control="shuffled",
            seed=seed + shuffle,
            streams=[own["stream"]],
            sigmas=[own["sigma"]],
            blocks=[int(own["block"])],
            **asked,
        ).outcomes.iloc[:, 3]
        for shuffle in range(shuffles)
    ]
    return np.mean(parts, axis=0)


def _page(table: pd.DataFrame) -> pd.DataFrame:
    """Order the controls, correct p-values and say in words what intervals allow."""
    order = list(SAID)
    table = table.assign(_order=table["control"].map(order.index)).sort_values(["facet", "_order"], kind="stable")
    kinds = dict.fromkeys(_PARTS, "part") | dict.fromkeys(_SHORTCUTS, "shortcut") | {TRAINED: TRAINED}
    table["kind"] = table["control"].map(kinds).fillna("control")
    mine = table["control"] == TRAINED
    table.loc[mine, [name for name in table if str(name).startswith("difference")]] = np.nan
    table["difference_p_value_holm"] = np.nan
    if (~mine).any():
        table.loc[~mine, "difference_p_value_holm"] = holm(table.loc[~mine, "difference_p_value"].to_numpy(dtype=float))
    chosen = table[mine].set_index("facet")["place"]
    table["statement"] = [_say(row, chosen[row["facet"]]) for row in table.to_dict("records")]
    return table.reindex(columns=list(COLUMNS)).astype({"block": "Int64"}).reset_index(drop=True)


def _say(row: Mapping[Any, Any], trained: str) -> str:
    """Say no more than the intervals do: is the control above chance, and is the trained backbone above it?"""
    if row["ci_low"] > 0.5:
        chance = "above chance"
    elif row["ci_high"] < 0.5:
        chance = "below chance"
    else:
        chance = "not told apart from chance"
    said = f"{row['facet']}: {SAID[row['control']]}: {chance}, {100 * row['value']:.1f}%"
    said += f" [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"
    if row["control"] == TRAINED:
        return f"{said} ({row['place']})."
    low, high = row["difference_low"], row["difference_high"]
    if row["kind"] == "part" and row["place"] == trained:
        return f"{said}; the trained backbone's best cell is one of these."
    if low > 0:
        against = "the trained backbone is above it"
    elif high < 0:
        against = "the trained backbone is below it"
    else:
        against = "the trained backbone is not told apart from it"
    said = f"{said}; {against}, {points(row['difference'], low, high)}"
    if (low > 0 or high < 0) and row["difference_p_value_holm"] > LEVEL:
        said += f", but not after Holm's correction (p = {row['difference_p_value_holm']:.2g})"
    return f"{said}."


def _place(cell: pd.Series) -> str:
    if pd.isna(cell["block"]):
        return f"latents {cell['reduction']}"
    return f"{cell['stream']} {cell['reduction']}, σ = {cell['sigma']:g}, block {cell['block']}"


def _roles(stores: Sequence[FeatureSource]) -> dict[str, FeatureSource]:
    """Read from each store what it is a control of."""
    roles: dict[str, FeatureSource] = {}
    for store in stores:
        prompts = store.attributes.get("prompts", "own")
        fresh = bool(store.attributes.get("random_init"))
        if fresh and prompts != "own":
            raise UserError(f"A store is random-initialised and has {prompts} prompts; change one thing at a time.")
        role = "random-init" if fresh else (TRAINED if prompts == "own" else f"{prompts} prompt")
        if role in roles:
            raise UserError(f"Two stores are {role}; give one of each.")
        roles[role] = store
    if TRAINED not in roles:
        raise UserError("None of the stores is of a trained backbone with its own prompts; give that one too.")
    trained = roles.pop(TRAINED)
    for other in roles.values():
        check_comparable(trained, other)
    return {TRAINED: trained, **roles}
