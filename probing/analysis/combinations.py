"""Probes on several blocks: every two, every set of stages, grown greedily, mixed; and is it stages, or width?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from probing.analysis.fits import Blocks, Fitter, Series, accuracies, common_columns, gains, points, series_of
from probing.analysis.heads import Head, Heads, count_heads, measure_heads
from probing.analysis.pairs import Facet, facets_of
from probing.analysis.recipe import LOGISTIC, Recipe
from probing.analysis.relation import relate, similarity_of
from probing.analysis.source import FeatureSource
from probing.analysis.stage_runs import StageRuns, stage_runs
from probing.errors import UserError
from probing.progress import progress as show_progress
from probing.statistics import LEVEL, holm, paired_difference

LARGEST = 4
"""Blocks of the greedy head: as many as the paper's reads."""
MOST_STAGES = 6
"""All subsets of more stages are more than a figure can show."""

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
    "blocks",
    "stages",
    "first",
    "second",
    "channels",
    "chosen",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "p_value",
    "p_value_holm",
    "gain",
    "gain_low",
    "gain_high",
    "gain_p_value",
    "gain_p_value_holm",
    "own_gain",
    "own_gain_low",
    "own_gain_high",
    "own_gain_p_value",
    "own_gain_p_value_holm",
    "cv_accuracy",
    "weights",
    "statement",
    "stage_source",
    "stage_runs",
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

``kind``: ``single``, ``pair``, ``subset`` (of stages, each by its best block), ``greedy``, ``mix``, ``contrast`` (a
difference of accuracies, in ``value``) or ``relation`` (of similarity and gain, in ``value``). ``head``: ``full``
(blocks side by side), ``pca`` or ``random`` (the same at one block's width), ``widened`` (one block at the width of
several); of a contrast or relation, its name. ``channels`` is the number of a linear head's parameters. ``chosen``
marks the best of its kind by training pairs. ``gain`` is against the best single block, ``own_gain`` of a pair against
the better of its own two; both were chosen on training pairs. P-values are corrected by Holm over the rows of a kind.
"""


def combinations(
    store: FeatureSource,
    pairs: pd.DataFrame,
    *,
    stages: pd.DataFrame | None = None,
    similarity: pd.DataFrame | None = None,
    streams: Sequence[str] | None = None,
    reductions: Sequence[str] | None = None,
    sigmas: Sequence[float] | None = None,
    blocks: Sequence[int] | None = None,
    facets: Sequence[str] | None = None,
    recipe: Recipe = LOGISTIC,
    largest: int = LARGEST,
    seed: int = 0,
    workers: int = 1,
    journal: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure heads on several blocks of each series (stream, reduction, noise level), facet by facet.

    Every choice is made by out-of-fold accuracy on training pairs: the best single block, the best pair, the block
    that stands for a stage, each step of the greedy selection, the weights of the mix. Test pairs are scored once.

    Args:
        store: Features of one backbone.
        pairs: As for :func:`probing.analysis.fit_cells`.
        stages: As for :func:`probing.analysis.stage_runs.stage_runs`; equal parts if None.
        similarity: As for :func:`probing.analysis.relation.similarity_of`; without it no relation is measured.
        streams: Which streams; all if None. Likewise the next four.
        reductions: Which reductions.
        sigmas: Which noise levels.
        blocks: Which blocks.
        facets: Which facets.
        recipe: What is fitted, the same for every head.
        largest: Blocks of the greedy head.
        seed: Of the bootstrap, of random projections and random features.
        workers: Heads fitted at once.
        journal: Folder that keeps what is measured, so that a killed run goes on; the caller takes it away.
        progress: Whether to show a progress bar, on a terminal.

    Returns:
        One row a head, contrast or relation, with the columns :data:`COLUMNS`.

    Raises:
        UserError: A series with fewer than two blocks, more than :data:`MOST_STAGES` stages, and what
            :func:`probing.analysis.fit_cells` refuses.
    """
    if largest < 2:
        raise UserError(f"Got {largest} blocks for the greedy head, expected 2 or more.")
    found = facets_of(store, pairs, facets)
    plans = []
    for series in series_of(store, streams=streams, reductions=reductions, sigmas=sigmas, blocks=blocks):
        if len(series.blocks) < 2:
            raise UserError(f"Two blocks make a combination, and {series.stream} has block {series.blocks[0]} alone.")
        runs = stage_runs(series.blocks, stages, model=store.attributes.get("model"), **_place(series))
        if len(runs.names) > MOST_STAGES:
            raise UserError(f"Got {len(runs.names)} stages, expected at most {MOST_STAGES}; join some of them.")
        plans.append((series, runs))
    total = len(found) * sum(count_heads(len(series.blocks), len(runs.names), largest) for series, runs in plans)
    tables = []
    with show_progress(total, "combinations", "fits", enabled=progress) as bar:
        for series, runs in plans:
            reader = Blocks(store, series)
            for facet in found:
                fitter = Fitter(store, facet, recipe, journal=journal, workers=workers, bar=bar)
                measured = measure_heads(reader, fitter, runs, largest=largest, seed=seed)
                near = similarity_of(similarity, store.attributes.get("model"), series)
                rows = [_heads(measured, runs, facet, seed), _contrasts(measured, runs, facet, seed)]
                if near is not None:
                    rows.append(relate(measured, near, facet, seed))
                common = common_columns(store, facet, recipe, seed) | series._asdict()
                common |= {"stage_source": runs.source, "stage_runs": _say_runs(runs)}
                own = pd.concat(rows, ignore_index=True)
                tables.append(own.assign(**{k: v for k, v in common.items() if k not in own and k != "blocks"}))
    table = _corrected(pd.concat(tables, ignore_index=True))
    return table.reindex(columns=list(COLUMNS)).astype({"first": "Int64", "second": "Int64", "channels": "Int64"})


def _heads(measured: Heads, runs: StageRuns, facet: Facet, seed: int) -> pd.DataFrame:
    """Give each head its accuracy, and its gain over the best single block; all share their resamples."""
    prompts = facet.test.prompts
    matrix = np.stack([head.fit.outcomes for head in measured.heads], axis=1)
    rows = pd.DataFrame([_describe(head, runs) for head in measured.heads])
    rows = rows.assign(metric="accuracy", **accuracies(matrix, prompts, seed))
    rows = rows.assign(**gains(matrix, measured.single(measured.best).outcomes, prompts, seed))
    two = (rows["kind"] == "pair").to_numpy()
    better = np.stack([better_of(measured, head).outcomes for head in np.array(measured.heads)[two]], axis=1)
    for name, values in gains(matrix[:, two], better, prompts, seed, "own_gain").items():
        rows.loc[two, name] = values
    for name in ("gain_p_value", "own_gain_p_value"):
        rows[f"{name}_holm"] = rows.groupby("kind")[name].transform(_holm)
    return rows


def better_of(measured: Heads, pair: Head) -> Any:
    """Return the fit of the better of a pair's two blocks, by training pairs."""
    return max((measured.single(block) for block in pair.blocks), key=lambda fit: fit.cv_accuracy)


def _describe(head: Head, runs: StageRuns) -> dict[str, Any]:
    stages = [runs.of(block) for block in head.blocks]
    one, two = (*head.blocks, pd.NA)[:2] if head.kind in ("single", "pair") else (pd.NA, pd.NA)
    return {
        "kind": head.kind,
        "head": head.form,
        "blocks": "+".join(map(str, head.blocks)),
        "stages": "+".join(stages if head.kind == "pair" else dict.fromkeys(stages)),
        "first": one,
        "second": two,
        "channels": head.fit.channels,
        "chosen": head.chosen,
        "cv_accuracy": head.fit.cv_accuracy,
        "weights": None if head.weights is None else " ".join(f"{weight:.4f}" for weight in head.weights),
    }


def _contrasts(measured: Heads, runs: StageRuns, facet: Facet, seed: int) -> pd.DataFrame:
    """Ask what the gains come from: other stages, or more parameters."""
    prompts = facet.test.prompts
    asked: list[tuple[str, str, str, np.ndarray, np.ndarray]] = []
    pairs = measured.of("pair")
    own = np.stack([head.fit.outcomes - better_of(measured, head).outcomes for head in pairs], axis=1)
    across = np.array([len({runs.of(block) for block in head.blocks}) == 2 for head in pairs])
    if across.any() and not across.all():
        asked.append(
            (
                "across-within",
                "two blocks of different stages",
                "two of one stage",
                own[:, across].mean(axis=1),
                own[:, ~across].mean(axis=1),
            )
        )
    for kind, said in (
        ("pair", "the chosen pair of blocks"),
        ("greedy", "the greedy head"),
        ("subset", "a block of every stage"),
    ):
        for head in measured.of(kind):
            whole = head.blocks == measured.standing if kind == "subset" else head.chosen
            if whole and len(head.blocks) > 1:
                wide = measured.widened(len(head.blocks)).outcomes
                asked.append((f"{kind}-widened", said, "the best block at its width", head.fit.outcomes, wide))
    rows = []
    for name, said, than, mine, other in asked:
        found = paired_difference(mine, other, prompts, seed=seed)
        value, low, high = float(found.estimate), float(found.low), float(found.high)
        says = f"{said} {_verdict(low, high, 'across' in name)} {than}: {points(value, low, high)}."
        rows.append(
            {
                "kind": "contrast",
                "head": name,
                "metric": "difference",
                "value": value,
                "ci_low": low,
                "ci_high": high,
                "p_value": float(found.p_value),
                "statement": says,
                "chosen": False,
            }
        )
    return pd.DataFrame(rows)


def _verdict(low: float, high: float, across: bool) -> str:
    """Say what an interval of a difference allows."""
    if low <= 0 <= high:
        return "do not measurably gain more or less than" if across else "is not told apart from"
    if across:
        return "gain more than" if low > 0 else "gain less than"
    return "is above" if low > 0 else "is below"


def _corrected(table: pd.DataFrame) -> pd.DataFrame:
    """Correct the p-values of contrasts and relations over the table, and say where nothing is left of one."""
    asked = table["p_value"].notna()
    table["p_value_holm"] = table[asked].groupby("kind")["p_value"].transform(_holm) if asked.any() else np.nan
    apart = asked & ((table["ci_low"] > 0) | (table["ci_high"] < 0)) & (table["p_value_holm"] > LEVEL)
    for row in table.index[apart]:
        table.loc[row, "statement"] = f"{str(table.loc[row, 'statement'])[:-1]}, but not after Holm's correction."
    return table


def _holm(p: pd.Series) -> pd.Series:
    known = p.notna()
    adjusted = p.copy()
    adjusted[known] = holm(p[known].to_numpy(dtype=float))
    return adjusted


def _place(series: Series) -> dict[str, Any]:
    return {"stream": series.stream, "reduction": series.reduction, "sigma": series.sigma}


def _say_runs(runs: StageRuns) -> str:
    return ", ".join(f"{name} {run[0]}-{run[-1]}" for name, run in zip(runs.names, runs.blocks, strict=True))
