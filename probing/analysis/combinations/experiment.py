"""Combinations: probes on two and more blocks, within and across stages, and controls of their width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from probing.analysis.combinations.heads import Head, Heads, count_heads, measure_heads
from probing.analysis.combinations.relation import PREDICTS, relate, similarity_of
from probing.analysis.engine import (
    ABOVE,
    ALL,
    BELOW,
    LOGISTIC,
    OPEN,
    TOO_LITTLE,
    WORDS,
    Context,
    CurveReader,
    Facet,
    FeatureSource,
    Fitter,
    Recipe,
    Run,
    Sites,
    Tables,
    accuracies,
    column_names,
    common_columns,
    correct,
    facets_of,
    format_difference,
    format_p_value,
    gains,
)
from probing.analysis.engine.table_input import TableInput, load_table, loaded
from probing.analysis.similarity.stage_input import MADE_BY, load_stages
from probing.analysis.similarity.stage_runs import StageRuns, stage_runs
from probing.errors import UserError
from probing.progress import progress
from probing.statistics import paired_difference

LARGEST = 4
"""Blocks of the greedy head, as many as the paper's head reads."""
MOST_STAGES = 6
"""All subsets of more stages are more than a figure can show."""

COLUMNS = column_names(
    "model data split facet stream reduction sigma kind head blocks stages first second channels chosen metric value "
    "ci_low ci_high p_value p_value_holm family verdict gain gain_low gain_high gain_p_value gain_p_value_holm "
    "gain_family gain_verdict own_gain own_gain_low own_gain_high own_gain_p_value own_gain_p_value_holm "
    "own_gain_family own_gain_verdict cv_accuracy weights statement stage_source stage_runs "
    "n_pairs n_prompts n_train_pairs ceiling probe seed"
)
"""Columns of the table.

``kind``: ``single``, ``pair``, ``subset`` (of stages, each by its best block), ``greedy``, ``mix``, ``contrast`` (a
difference of accuracies, in ``value``) or ``relation`` (of similarity and gain, in ``value``). ``head``: ``full``
(blocks side by side), ``pca`` or ``random`` (the same at one block's width), ``widened`` (one block at the width of
several); the name of a contrast or relation. ``channels`` is the number of a linear head's parameters. ``chosen``
marks the best of its kind by training pairs. ``gain`` is against the best single block, ``own_gain`` of a pair against
the better of its two; both are selected on training pairs. Holm's families (:func:`probing.analysis.engine.correct`):
the gains of one curve and facet, all contrasts of a store, and all its relations.
"""

_GAINS = {
    ABOVE: "gain more than",
    BELOW: "gain less than",
    OPEN: "do not measurably gain more or less than",
    TOO_LITTLE: "have too little data to compare with",
}


@dataclass(frozen=True)
class CombinationSettings:
    """What combinations are measured.

    Attributes:
        stages: Stages as a table (.parquet, .csv) or as runs of blocks like 0-2,3-5,6-7; default: equal parts.
        similarity: Table of block similarity, to test whether it predicts the gain of a pair.
        largest: Most blocks of the greedy head.

    Raises:
        UserError: A table that cannot be read, or fewer than two blocks.
    """

    stages: TableInput | None = None
    similarity: TableInput | None = None
    largest: int = LARGEST

    def __post_init__(self) -> None:
        if self.largest < 2:
            raise UserError(f"Got {self.largest} blocks for the greedy head, expected 2 or more.")
        if self.stages is not None:
            object.__setattr__(self, "stages", load_stages(self.stages))
        if self.similarity is not None:
            columns = ("block", "other", "value")
            object.__setattr__(self, "similarity", load_table(self.similarity, MADE_BY, columns))


def measure_combinations(
    store: FeatureSource,
    pairs: pd.DataFrame,
    settings: CombinationSettings | None = None,
    *,
    sites: Sites = ALL,
    facets: Sequence[str] | None = None,
    recipe: Recipe = LOGISTIC,
    run: Run | None = None,
) -> pd.DataFrame:
    """Measure heads on several blocks of each curve, facet by facet.

    Every selection uses out-of-fold accuracy on training pairs: the best single block, the best pair, the
    representative block of a stage, each step of the greedy head, the weights of the mix. Test pairs are scored once.

    Args:
        store: Features of one backbone.
        pairs: As for :func:`probing.analysis.engine.measure_cells`.
        settings: Stages, similarity, and the size of the greedy head.
        sites: Which sites.
        facets: Which facets; all if None.
        recipe: The probe of every head.
        run: How to run; its seed is also that of random projections and random features.

    Returns:
        One row a head, contrast or relation, with the columns :data:`COLUMNS`.

    Raises:
        UserError: A curve of fewer than two blocks, more than :data:`MOST_STAGES` stages, and what
            :func:`probing.analysis.engine.measure_cells` refuses.
    """
    run, settings = run or Run(), settings or CombinationSettings()
    largest = settings.largest
    selected = facets_of(store, pairs, facets)
    model = store.attributes.get("model")
    plans = []
    for curve in sites.curves_of(store):
        if len(curve.blocks) < 2:
            raise UserError(f"Two blocks make a combination, and {curve.stream} has block {curve.blocks[0]} alone.")
        stage_blocks = stage_runs(
            curve.blocks,
            None if settings.stages is None else loaded(settings.stages),
            model=model,
            stream=curve.stream,
            reduction=curve.reduction,
            sigma=curve.sigma,
            divide_one=True,
        )
        if len(stage_blocks.names) > MOST_STAGES:
            raise UserError(f"Got {len(stage_blocks.names)} stages, expected at most {MOST_STAGES}; join some of them.")
        plans.append((curve, stage_blocks))
    total = len(selected) * sum(count_heads(len(curve.blocks), len(s.names), largest) for curve, s in plans)
    tables = []
    with progress(total, "combinations", "fits", enabled=run.progress) as bar:
        for curve, stage_blocks in plans:
            reader = CurveReader(store, curve)
            similarity = None if settings.similarity is None else loaded(settings.similarity)
            similarities = similarity_of(similarity, model, curve)
            for facet in selected:
                fitter = Fitter(store, [facet], recipe, run, bar=bar)
                heads = measure_heads(reader, fitter, stage_blocks, largest=largest, seed=run.seed)
                rows = [_head_rows(heads, stage_blocks, facet), _contrasts(heads, stage_blocks, facet)]
                if similarities is not None:
                    rows.append(relate(heads, similarities, facet, run.seed))
                common = common_columns(store, facet, recipe, run.seed) | curve._asdict()
                common |= {"stage_source": stage_blocks.source, "stage_runs": _describe_stages(stage_blocks)}
                table = pd.concat(rows, ignore_index=True)
                tables.append(table.assign(**{k: v for k, v in common.items() if k not in table and k != "blocks"}))
    table = _correct(pd.concat(tables, ignore_index=True))
    return table.reindex(columns=list(COLUMNS)).astype({"first": "Int64", "second": "Int64", "channels": "Int64"})


def _head_rows(heads: Heads, stages: StageRuns, facet: Facet) -> pd.DataFrame:
    """Measure each head's accuracy and its gain over the best single block."""
    prompts = facet.test.prompts
    matrix = np.stack([head.fit.outcomes for head in heads.heads], axis=1)
    rows = pd.DataFrame([_describe(head, stages) for head in heads.heads])
    rows = rows.assign(metric="accuracy", **accuracies(matrix, prompts))
    rows = rows.assign(**gains(matrix, heads.single(heads.best).outcomes, prompts))
    is_pair = (rows["kind"] == "pair").to_numpy()
    better = np.stack([heads.better_block(head).outcomes for head in np.array(heads.heads)[is_pair]], axis=1)
    for name, values in gains(matrix[:, is_pair], better, prompts, "own_gain").items():
        rows.loc[is_pair, name] = values
    # The best block has no gain over itself, whatever the kind of head that it stands in.
    itself = (rows["head"] == "full") & (rows["blocks"] == str(heads.best))
    rows.loc[itself, ["gain_p_value", "gain_smallest_p_value"]] = np.nan
    return rows


def _describe(head: Head, stage_blocks: StageRuns) -> dict[str, Any]:
    stages = [stage_blocks.of(block) for block in head.blocks]
    first, second = (*head.blocks, pd.NA)[:2] if head.kind in ("single", "pair") else (pd.NA, pd.NA)
    return {
        "kind": head.kind,
        "head": head.form,
        "blocks": "+".join(map(str, head.blocks)),
        "stages": "+".join(stages if head.kind == "pair" else dict.fromkeys(stages)),
        "first": first,
        "second": second,
        "channels": head.fit.channels,
        "chosen": head.chosen,
        "cv_accuracy": head.fit.cv_accuracy,
        "weights": None if head.weights is None else " ".join(f"{weight:.4f}" for weight in head.weights),
    }


def _contrasts(heads: Heads, stages: StageRuns, facet: Facet) -> pd.DataFrame:
    """Test what the gains come from: other stages, or more parameters."""
    contrasts: list[tuple[str, str, str, np.ndarray, np.ndarray]] = []
    pairs = heads.of("pair")
    gain = np.stack([head.fit.outcomes - heads.better_block(head).outcomes for head in pairs], axis=1)
    across = np.array([len({stages.of(block) for block in head.blocks}) == 2 for head in pairs])
    if across.any() and not across.all():
        means = gain[:, across].mean(axis=1), gain[:, ~across].mean(axis=1)
        contrasts.append(("across-within", "two blocks of different stages", "two of one stage", *means))
    labels = {"pair": "the chosen pair of blocks", "greedy": "the greedy head", "subset": "a block of every stage"}
    for kind, label in labels.items():
        for head in heads.of(kind):
            selected = head.blocks == heads.representative if kind == "subset" else head.chosen
            if selected and len(head.blocks) > 1:
                wide = heads.of_width(len(head.blocks)).outcomes
                contrasts.append((f"{kind}-widened", label, "the best block, widened or not", head.fit.outcomes, wide))
    rows = []
    for name, label, baseline_label, head_outcomes, baseline_outcomes in contrasts:
        test = paired_difference(head_outcomes, baseline_outcomes, facet.test.prompts)
        value, low, high = float(test.estimate), float(test.low), float(test.high)
        rows.append(
            {
                "kind": "contrast",
                "head": name,
                "metric": "difference",
                "value": value,
                "ci_low": low,
                "ci_high": high,
                "p_value": float(test.p_value),
                "smallest_p_value": float(test.smallest_p_value),
                "statement": f"{label} {{verdict}} {baseline_label}: {format_difference(value, low, high)}{{p_value}}.",
                "chosen": False,
            }
        )
    return pd.DataFrame(rows)


def _correct(table: pd.DataFrame) -> pd.DataFrame:
    """Correct all p-values, and put the verdicts of contrasts and relations into words."""
    for name in ("gain", "own_gain"):
        table = correct(table, name, by=["facet", "stream", "reduction", "sigma"], prefix=f"{name}_")
    table = correct(table, "value", by=["kind"])
    for row in table.index[table["p_value"].notna()]:
        words = _GAINS if table.loc[row, "head"] == "across-within" else WORDS
        words = PREDICTS if table.loc[row, "kind"] == "relation" else words
        verdict = str(table.loc[row, "verdict"])
        p_value = format_p_value(verdict, table.loc[row, "p_value_holm"])
        table.loc[row, "statement"] = str(table.loc[row, "statement"]).format(verdict=words[verdict], p_value=p_value)
    return table


def _describe_stages(stages: StageRuns) -> str:
    return ", ".join(f"{name} {run[0]}-{run[-1]}" for name, run in zip(stages.names, stages.blocks, strict=True))


def run_combinations(context: Context, settings: CombinationSettings) -> Tables:
    """Measure the combinations of every store."""
    tables = [measure_combinations(store, context.pairs, settings, **context.selections) for store in context.stores]
    return {"combinations": pd.concat(tables, ignore_index=True)}
