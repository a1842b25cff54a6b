"""Compare the trained backbone with its controls and with other rewards, paired on the same prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from probing.analysis.engine import (
    REFERENCE,
    WORDS,
    CellResults,
    column_names,
    correct,
    format_difference,
    format_p_value,
)
from probing.errors import UserError
from probing.result_tables import best_cell
from probing.statistics import paired_difference

BASELINES = {"random-init": "the random-initialised backbone", "latents": "the pooled latents"}

COLUMNS = column_names(
    "model data split facet scope sigma stream baseline metric difference ci_low ci_high p_value p_value_holm family "
    "verdict n_pairs n_prompts value baseline_value chosen baseline_chosen block baseline_block cell baseline_cell "
    "probe seed statement",
    with_provenance=False,
)


def compare(results: CellResults, *, seed: int = 0) -> pd.DataFrame:
    """Compare the best cell of the trained backbone with the best of each control, and with each reference.

    Compared are, for every facet × sigma × stream (scope ``stream``) and over all sites of a facet (scope ``overall``),
    the cells of highest cross-validated accuracy **on training pairs**; the test pairs are used once, for the
    difference. P-values are corrected by Holm over all rows of the table; see :func:`probing.analysis.engine.correct`.

    Args:
        results: Cells of :func:`probing.analysis.reward_curve.measure_curve`, joined with references.
        seed: Seed of the run, a column of the table.

    Returns:
        One row a comparison, with the columns :data:`COLUMNS`; differences are trained minus control, and
        ``statement`` says the ``verdict`` in a sentence.

    Raises:
        UserError: No trained cell, or no control to compare it with.
    """
    matches = list(_matches(results.table))
    if not matches:
        raise UserError(
            "There is nothing to compare: the results need trained cells and a control; give a random-init store."
        )
    rows = [_row(results.outcomes, *match, seed=seed) for match in matches]
    table = correct(pd.DataFrame(rows), "difference")
    table["statement"] = [_statement(row) for row in table.to_dict("records")]
    return table[list(COLUMNS)].astype({"block": "Int64", "baseline_block": "Int64"})


def _matches(table: pd.DataFrame) -> Iterator[tuple[str, str, pd.Series, pd.Series]]:
    """Yield (scope, baseline, chosen trained cell, chosen control cell)."""
    trained = table[table["control"] == "trained"]
    for facet, cells in trained.groupby("facet", sort=True):
        controls = {name: table[(table["control"] == name) & (table["facet"] == facet)] for name in BASELINES}
        for (sigma, stream), part in cells.groupby(["sigma", "stream"], sort=True):
            random_init = controls["random-init"]
            random_init = random_init[(random_init["sigma"] == sigma) & (random_init["stream"] == stream)]
            for name, control in (("random-init", random_init), ("latents", controls["latents"])):
                if len(control):
                    yield "stream", name, best_cell(part), best_cell(control)
        for name, control in controls.items():
            if len(control):
                yield "overall", name, best_cell(cells), best_cell(control)
        for _, reference in table[(table["control"] == REFERENCE) & (table["facet"] == facet)].iterrows():
            yield "overall", REFERENCE, best_cell(cells), reference


def _row(
    outcomes: pd.DataFrame, scope: str, baseline: str, trained: pd.Series, control: pd.Series, *, seed: int
) -> dict[str, Any]:
    pairs = outcomes[outcomes["facet"] == trained["facet"]]
    difference = paired_difference(
        pairs[trained["cell"]].to_numpy(), pairs[control["cell"]].to_numpy(), pairs["prompt_id"].to_numpy()
    )
    return {
        **{name: trained[name] for name in ("model", "data", "split", "facet", "sigma", "stream", "metric", "probe")},
        "scope": scope,
        "baseline": baseline,
        "difference": float(difference.estimate),
        "ci_low": float(difference.low),
        "ci_high": float(difference.high),
        "p_value": float(difference.p_value),
        "smallest_p_value": float(difference.smallest_p_value),
        "n_pairs": int(trained["n_pairs"]),
        "n_prompts": int(trained["n_prompts"]),
        "value": float(trained["value"]),
        "baseline_value": float(control["value"]),
        "chosen": describe_cell(trained),
        "baseline_chosen": describe_cell(control),
        "block": trained["block"],
        "baseline_block": control["block"],
        "cell": trained["cell"],
        "baseline_cell": control["cell"],
        "seed": seed,
    }


def describe_cell(cell: pd.Series) -> str:
    """Describe the site of a cell: ``image mean, σ = 0.005, block 7``."""
    if cell["control"] == REFERENCE:
        return str(cell["model"])
    if pd.isna(cell["block"]):
        return f"latents {cell['reduction']}"
    return f"{cell['stream']} {cell['reduction']}, σ = {cell['sigma']:g}, block {cell['block']}"


def _statement(row: Mapping[Any, Any]) -> str:
    measured = format_difference(row["difference"], row["ci_low"], row["ci_high"])
    cell, value = row["baseline_chosen"], f"{100 * row['baseline_value']:.1f}%"
    control = f"{cell} ({value})" if row["baseline"] == REFERENCE else f"{BASELINES[row['baseline']]} ({cell}; {value})"
    trained = f"the trained backbone ({row['chosen']}; {100 * row['value']:.1f}%)"
    p_value = format_p_value(row["verdict"], row["p_value_holm"])
    return f"{row['facet']}: {trained} {WORDS[row['verdict']]} {control}: {measured}{p_value}."
