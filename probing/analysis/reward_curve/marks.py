"""What the figures of a reward curve show: candidates for its best block and stages, or one facet alone."""

from __future__ import annotations

import pandas as pd

from probing.analysis.engine import ALL_FACETS
from probing.analysis.similarity.stage_runs import stage_runs
from probing.errors import UserError
from probing.result_tables import PUBLISHED

_CELL = ["model", "facet", "probe", "stream", "reduction", "sigma", "block", "control"]
_CURVE = ["model", "stream", "reduction", "sigma"]


def headline_rows(curve: pd.DataFrame) -> pd.DataFrame:
    """Select the cells of every pair together, or of the first facet if each facet stands alone, without marks."""
    facets = sorted(curve["facet"].unique())
    rows = curve[curve["facet"] == (ALL_FACETS if ALL_FACETS in facets else facets[0])]
    return rows.drop(columns=["stage", "may_be_best"], errors="ignore")


def mark_curve(
    curve: pd.DataFrame, measures: pd.DataFrame | None = None, stages: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Add ``may_be_best`` and ``stage`` to the cells of a reward curve, so that its figure needs no other table.

    Args:
        curve: Cells of :func:`probing.analysis.reward_curve.measure_curve`.
        measures: Measures of the same cells, of :func:`probing.analysis.reward_curve.measures`; without them
            ``may_be_best`` is not added.
        stages: As for :func:`probing.analysis.similarity.stage_runs.stage_runs`; without them ``stage`` is not added.

    Returns:
        The same rows with ``may_be_best`` (1, 0, or NaN without a measure) and ``stage`` (None for a model that the
        stages lack).

    Raises:
        UserError: The stages do not cover the blocks of a curve.
    """
    marked = curve.copy()
    if measures is not None:
        values = measures[measures["metric"] == "may_be_best"].drop_duplicates(_CELL).set_index(_CELL)["value"]
        keys = pd.MultiIndex.from_frame(curve[_CELL])
        marked["may_be_best"] = values.reindex(keys).to_numpy() if len(values) else float("nan")
    if stages is not None:
        marked["stage"] = None
        for _, cells in marked[marked["block"].notna() & (marked["control"] != PUBLISHED)].groupby(
            _CURVE, dropna=False
        ):
            site = {name: cells[name].iloc[0] for name in _CURVE}
            if "model" in stages and site["model"] not in set(stages["model"]):
                continue
            blocks = sorted(cells["block"].astype(int).unique().tolist())
            try:
                runs = stage_runs(blocks, stages, **site)
            except UserError as error:
                raise UserError(
                    f"The stages do not fit the curve of {site['model']}, {site['stream']}: {error}"
                ) from error
            marked.loc[cells.index, "stage"] = [runs.of(int(block)) for block in cells["block"]]
    return marked
