"""The results of fits: one row a cell, the outcome and margin of every test pair, and their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.analysis.engine.facets import Facet
from probing.analysis.engine.fitting import Fit
from probing.analysis.engine.provenance import KEYS, column_names, provenance
from probing.analysis.engine.recipe import Recipe
from probing.analysis.engine.source import FeatureSource
from probing.statistics import crossed_interval, outcomes, paired_difference, share_interval

SHUFFLED = "shuffled"
COLUMNS = column_names(
    "model data split sigma stream reduction block depth probe control seed facet metric value ci_low ci_high n_pairs "
    "n_prompts alpha cv_accuracy ceiling n_train_pairs scaling temperature compression probe_seeds seed_deviation "
    "draws draw_low draw_high cell"
)
"""Columns of a table of cells.

``control``: trained, random-init, latents, shuffled, or reference (another model's rewards, where nothing is fitted);
``cell`` names a column of outcomes and of margins. ``temperature`` divides margins into log odds, fitted out of fold on
training pairs; ``compression``: see :meth:`probing.analysis.engine.Recipe.compression`; ``value`` is a mean over
``probe_seeds`` trainings, ``seed_deviation`` their standard deviation. ``shuffled`` and ``random-init`` are means over
``draws`` shuffles or random weights; ``draw_low`` and ``draw_high`` bound 95% of single shuffles, and all of the
random weights."""
OPTIONAL = ("block_list",)
"""Further columns: ``block_list``, the transformer's list that a block is in, where it has several kinds of block."""


@dataclass(frozen=True)
class CellResults:
    """Measurements of cells, and the outcome of every test pair in each.

    Attributes:
        table: One row a cell, with the columns :data:`COLUMNS`.
        outcomes: One row a test pair (``pair_id``, ``prompt_id``, ``facet``) and one column a cell, named by the
            table's ``cell``: 1 right, 0 wrong, 0.5 a predicted tie, NaN a tie of the annotators or another facet; a
            mean over the probe's seeds.
        margins: Likewise, the reward of the first item less that of the second; NaN another facet.
    """

    table: pd.DataFrame
    outcomes: pd.DataFrame
    margins: pd.DataFrame

    @property
    def trained(self) -> CellResults:
        """The cells of control ``trained``; outcomes and margins of the others stay."""
        return CellResults(self.table[self.table["control"] == "trained"], self.outcomes, self.margins)

    @staticmethod
    def join(*parts: CellResults) -> CellResults:
        """Join measurements on the same pairs.

        Raises:
            ValueError: A cell is in two of them.
        """
        table = pd.concat([part.table for part in parts], ignore_index=True)
        if table["cell"].duplicated().any():
            repeated = table.loc[table["cell"].duplicated(), "cell"].iloc[0]
            raise ValueError(f"Got cell {repeated} twice, expected it once; join results of other stores or controls.")
        outcomes, margins = (
            reduce(
                lambda left, right: left.merge(right, on=KEYS, how="outer", validate="one_to_one"),
                (getattr(part, name) for part in parts),
            )
            for name in ("outcomes", "margins")
        )
        return CellResults(table, outcomes, margins)


def cell_results(
    facet: Facet, sites: Sequence[Mapping[str, Any]], fits: Sequence[Fit], columns: Mapping[str, Any]
) -> CellResults:
    """Measure the accuracy and interval of each cell of one facet.

    Args:
        facet: The facet.
        sites: Columns of each cell's site.
        fits: The fit of each cell.
        columns: Columns that all cells share.
    """
    test = facet.test
    matrix = np.stack([fit.outcomes for fit in fits], axis=1)
    by_seed = [fit.seed_outcomes[:, test.untied].mean(axis=1) for fit in fits]
    names = ("cell", "alpha", "cv_accuracy", "scaling", "compression", "temperature")
    table = pd.DataFrame(
        [{**site, **{name: getattr(fit, name) for name in names}} for site, fit in zip(sites, fits, strict=True)]
    ).assign(
        **{**columns, **facet_columns(facet)},
        **accuracies(matrix, test.prompts),
        probe_seeds=[len(values) for values in by_seed],
        seed_deviation=[float(np.std(v, ddof=1)) if len(v) > 1 else float("nan") for v in by_seed],
    )
    margins = np.stack([fit.margins.mean(axis=1) for fit in fits], axis=1)
    return _results(facet, table, matrix, margins)


def shuffled_results(
    facet: Facet, sites: Sequence[Mapping[str, Any]], fits: Sequence[Fit], columns: Mapping[str, Any]
) -> CellResults:
    """Measure the accuracy of each cell's refits to shuffled choices: their mean, and the range of single shuffles.

    The interval of the mean is for other prompts and other shuffles. A single shuffle can lie far from one half, since
    a probe that has learned nothing has a random direction; only the mean over shuffles must be at chance.
    """
    test = facet.test
    rows, right, margins = [], [], []
    for site, fit in zip(sites, fits, strict=True):
        by_shuffle = np.stack([outcomes(column, test.choices) for column in fit.shuffled.T], axis=1)
        interval = crossed_interval(by_shuffle, test.prompts)
        low, high = np.quantile(by_shuffle[test.untied].mean(axis=0), [0.025, 0.975])
        right.append(by_shuffle.mean(axis=1))
        margins.append(fit.shuffled.mean(axis=1))
        rows.append(
            {
                **site,
                "cell": SHUFFLED + fit.cell.removeprefix(fit.cell.split("/")[0]),
                "alpha": fit.alpha,
                "scaling": fit.scaling,
                "value": float(interval.estimate),
                "ci_low": float(interval.low),
                "ci_high": float(interval.high),
                "draws": by_shuffle.shape[1],
                "draw_low": float(low),
                "draw_high": float(high),
            }
        )
    shared = {**columns, **facet_columns(facet), "control": SHUFFLED, "probe_seeds": 1}
    table = pd.DataFrame(rows).assign(**shared)
    return _results(facet, table, np.stack(right, axis=1), np.stack(margins, axis=1))


def average_draws(draws: Sequence[CellResults]) -> CellResults:
    """Average the same cells under several random weights; selection uses the mean out-of-fold accuracy.

    The interval is over prompts; ``draw_low`` and ``draw_high`` are the least and largest accuracy of a draw.

    Raises:
        ValueError: Their cells or pairs differ.
    """
    first = draws[0]
    if any(list(part.table["cell"]) != list(first.table["cell"]) for part in draws):
        raise ValueError("Expected the same cells in every draw; measure the same sites and facets.")
    if any((part.outcomes[KEYS] != first.outcomes[KEYS]).any(axis=None) for part in draws):
        raise ValueError("Expected the same test pairs in every draw.")
    table = first.table.copy()
    right, margins = first.outcomes.copy(), first.margins.copy()
    by_draw = np.stack([part.table["value"].to_numpy() for part in draws], axis=1)
    table["cv_accuracy"] = np.mean([part.table["cv_accuracy"].to_numpy() for part in draws], axis=0)
    table["draws"] = len(draws)
    table["draw_low"], table["draw_high"] = by_draw.min(axis=1), by_draw.max(axis=1)
    if len(draws) > 1:
        cells = list(table["cell"])
        right[cells] = np.mean([part.outcomes[cells].to_numpy() for part in draws], axis=0)
        margins[cells] = np.mean([part.margins[cells].to_numpy() for part in draws], axis=0)
        for name in ("alpha", "temperature", "compression", "extraction_seed"):
            table[name] = np.nan
        for facet, rows in table.groupby("facet"):
            of_facet = right[right["facet"] == facet]
            values = accuracies(of_facet[rows["cell"]].to_numpy(), of_facet["prompt_id"].to_numpy(dtype=str))
            for name, column in values.items():
                table.loc[rows.index, name] = column
    return CellResults(table, right, margins)


def _results(facet: Facet, table: pd.DataFrame, right: np.ndarray, margins: np.ndarray) -> CellResults:
    keys = facet.test.table[KEYS]
    columns = [*COLUMNS, *(name for name in OPTIONAL if name in table)]
    table = table.reindex(columns=columns).astype({"block": "Int64", "draws": "Int64"})
    return CellResults(
        table, *(pd.concat([keys, pd.DataFrame(m, columns=list(table["cell"]))], axis=1) for m in (right, margins))
    )


def concatenate_facets(parts: Sequence[CellResults]) -> CellResults:
    """Concatenate the results of different facets."""
    return CellResults(
        *(
            pd.concat([getattr(part, name) for part in parts], ignore_index=True)
            for name in ("table", "outcomes", "margins")
        )
    )


def accuracies(columns: Float[np.ndarray, "pair cell"], prompts: np.ndarray) -> dict[str, np.ndarray]:
    """Return each column's accuracy with its 95% interval over prompts, as columns of a table."""
    interval = share_interval(columns, prompts)
    return {"value": interval.estimate, "ci_low": interval.low, "ci_high": interval.high}


def gains(
    columns: Float[np.ndarray, "pair cell"], reference: np.ndarray, prompts: np.ndarray, name: str = "gain"
) -> dict[str, np.ndarray]:
    """Return each column's paired difference to a reference (one column, or one each), as columns of a table."""
    against = np.broadcast_to(reference if reference.ndim == 2 else reference[:, None], columns.shape)
    test = paired_difference(columns, against, prompts)
    return {
        name: test.estimate,
        f"{name}_low": test.low,
        f"{name}_high": test.high,
        f"{name}_p_value": test.p_value,
        f"{name}_smallest_p_value": test.smallest_p_value,
    }


def common_columns(store: FeatureSource, facet: Facet, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Return the columns that every row of a facet's measurements shares."""
    return {**provenance(store), "probe": recipe.probe, "seed": seed, **facet_columns(facet)}


def facet_columns(facet: Facet) -> dict[str, Any]:
    """Return the facet's name and counts, as columns of a table of accuracies."""
    return {
        "split": "test",
        "facet": facet.name,
        "metric": "accuracy",
        "n_pairs": int(facet.test.untied.sum()),
        "n_prompts": len(np.unique(facet.test.prompts[facet.test.untied])),
        "n_train_pairs": len(facet.train.choices),
        "ceiling": facet.test.ceiling,
    }


def format_difference(value: float, low: float, high: float) -> str:
    """Format a difference of accuracies with its interval, in percentage points."""
    return f"{100 * value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
