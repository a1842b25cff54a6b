"""Effects of a full factorial design: contrasts of accuracies, paired over the same test pairs."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from probing.analysis.engine import ABOVE, BELOW, OPEN, TOO_LITTLE, WORDS, correct, format_difference, format_p_value
from probing.statistics import paired_difference

FACTORS = ("head", "stream", "sigma", "model")
_MORE = {
    ABOVE: "is larger",
    BELOW: "is smaller",
    OPEN: "is not measurably larger or smaller",
    TOO_LITTLE: "has too little data to be compared",
}


class _Contrast(NamedTuple):
    """A weighted sum of the design's cells.

    Attributes:
        columns: What the table tells of it.
        statement: With places for the verdict, its difference and p-value.
        weights: Of each cell; the positive ones sum to ``scale``, the negative ones to minus that.
        scale: 1 for a difference of two means, 2 for a difference of two differences.
    """

    columns: dict[str, Any]
    statement: str
    weights: Float[np.ndarray, " cell"]
    scale: int = 1


def effects(cells: pd.DataFrame, outcomes: Float[np.ndarray, "pair cell"], prompts: np.ndarray) -> pd.DataFrame:
    """Measure the effects of one facet's design.

    A ``main`` effect is a level less the first level of its factor, each the mean over all cells of it. An
    ``interaction`` is how much larger that difference is at a level of another factor than at its first level. A
    ``simple`` effect is the largest model less the smallest in one setting of the other factors. The ``reversal`` is
    the smallest model in the setting that suits it best, less the largest in the one that suits it least, both chosen
    by accuracy on training pairs.

    Args:
        cells: ``head, stream, sigma, model``, every combination once, each factor in the order of its levels; and
            ``cv_accuracy``.
        outcomes: Outcomes of the test pairs, one column a cell.
        prompts: Prompts of the test pairs.

    Returns:
        One row an effect; none if every factor has one level.
    """
    contrasts = [*_main_effects(cells), *_interactions(cells), *_of_models(cells)]
    if not contrasts:
        return pd.DataFrame()
    scales = np.array([contrast.scale for contrast in contrasts])
    weights = np.stack([contrast.weights for contrast in contrasts], axis=1) / scales
    test = paired_difference(outcomes @ np.maximum(weights, 0), outcomes @ np.maximum(-weights, 0), prompts)
    return pd.DataFrame([{**contrast.columns, "statement": contrast.statement} for contrast in contrasts]).assign(
        metric="difference",
        value=test.estimate * scales,
        ci_low=test.low * scales,
        ci_high=test.high * scales,
        p_value=test.p_value,
        smallest_p_value=test.smallest_p_value,
    )


def decide(table: pd.DataFrame) -> pd.DataFrame:
    """Correct the p-values by Holm over the effects of one kind and facet, and put the verdicts into words."""
    table = correct(table, "value", by=["facet", "kind"])
    for row in table.index[table["p_value"].notna()]:
        effect = table.loc[row]
        words = _MORE if effect["kind"] == "interaction" else WORDS
        difference = format_difference(effect["value"], effect["ci_low"], effect["ci_high"])
        measured = difference + format_p_value(effect["verdict"], effect["p_value_holm"])
        # Not by format: a model's name may have braces.
        sentence = effect["statement"].replace("{verdict}", words[effect["verdict"]])
        table.loc[row, "statement"] = sentence.replace("{measured}", measured)
    return table


def shown_level(factor: str, level: Any) -> str:
    """Write a level: ``σ = 0.6``, ``mlp``."""
    return f"σ = {level:g}" if factor == "sigma" else str(level)


def _levels(cells: pd.DataFrame, factor: str) -> list[Any]:
    return list(cells[factor].unique())


def _is(cells: pd.DataFrame, factor: str, level: Any) -> Bool[np.ndarray, " cell"]:
    mask: Bool[np.ndarray, " cell"] = (cells[factor] == level).to_numpy()
    return mask


def _less(one: Bool[np.ndarray, " cell"], other: Bool[np.ndarray, " cell"]) -> Float[np.ndarray, " cell"]:
    """Weigh the mean of some cells less that of others."""
    weights: Float[np.ndarray, " cell"] = one / one.sum() - other / other.sum()
    return weights


def _main_effects(cells: pd.DataFrame) -> list[_Contrast]:
    found = []
    for factor in FACTORS:
        first, *others = _levels(cells, factor)
        rest = [name for name in FACTORS if name != factor and len(_levels(cells, name)) > 1]
        over = f", mean over every {', '.join(rest)}" if rest else ""
        for level in others:
            names = shown_level(factor, level), shown_level(factor, first)
            columns = {"kind": "main", "factor": factor, "level": names[0], "against": names[1]}
            statement = f"{names[0]} {{verdict}} {names[1]}{over}: {{measured}}."
            found.append(_Contrast(columns, statement, _less(_is(cells, factor, level), _is(cells, factor, first))))
    return found


def _interactions(cells: pd.DataFrame) -> list[_Contrast]:
    found = []
    for factor, other in combinations(FACTORS, 2):
        first, *levels = _levels(cells, factor)
        other_first, *other_levels = _levels(cells, other)
        for level, other_level in product(levels, other_levels):
            at, at_first = (_is(cells, other, value) for value in (other_level, other_first))
            one, reference = _is(cells, factor, level), _is(cells, factor, first)
            weights = _less(one & at, reference & at) - _less(one & at_first, reference & at_first)
            names = [shown_level(factor, value) for value in (level, first)]
            other_names = [shown_level(other, value) for value in (other_level, other_first)]
            columns = {"kind": "interaction", "factor": factor, "level": names[0], "against": names[1]}
            columns |= {"other_factor": other, "other_level": other_names[0], "other_against": other_names[1]}
            statement = (
                f"the difference {names[0]} less {names[1]} {{verdict}} at {other_names[0]} than at {other_names[1]}: "
                f"{{measured}}."
            )
            found.append(_Contrast(columns, statement, weights, scale=2))
    return found


def _of_models(cells: pd.DataFrame) -> list[_Contrast]:
    """Compare the smallest and the largest model in every setting, and in the settings that favour the smallest."""
    smallest, largest = (_levels(cells, "model")[end] for end in (0, -1))
    if smallest == largest:
        return []
    found = []
    of = {model: _is(cells, "model", model) for model in (smallest, largest)}
    settings = [name for name in FACTORS if name != "model"]
    for setting, rows in cells.groupby(settings, sort=False):
        there = cells.index.isin(rows.index)
        columns = dict(zip(settings, setting, strict=True))
        columns |= {"kind": "simple", "factor": "model", "level": largest, "against": smallest}
        where = _describe(dict(zip(settings, setting, strict=True)))
        statement = f"{largest} {{verdict}} {smallest} with {where}: {{measured}}."
        found.append(_Contrast(columns, statement, _less(there & of[largest], there & of[smallest])))
    if len(found) > 1:
        best = cells.loc[of[smallest], "cv_accuracy"].astype(float).idxmax()
        worst = cells.loc[of[largest], "cv_accuracy"].astype(float).idxmin()
        columns = {"kind": "reversal", "factor": "model", "level": smallest, "against": largest}
        favourable, unfavourable = (_describe(cells.loc[cell, settings].to_dict()) for cell in (best, worst))
        statement = (
            f"{smallest} with {favourable} {{verdict}} {largest} with {unfavourable}, the settings that suit it best "
            f"and least: {{measured}}."
        )
        found.append(_Contrast(columns, statement, _less(cells.index == best, cells.index == worst)))
    return found


def _describe(setting: dict[Any, Any]) -> str:
    return f"{setting['head']} on {setting['stream']} at {shown_level('sigma', setting['sigma'])}"
