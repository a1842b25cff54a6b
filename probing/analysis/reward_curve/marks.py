"""Marks on a reward curve: blocks that may be its best, and the stages."""

from __future__ import annotations

from typing import Any

import pandas as pd

from probing.analysis.similarity.stage_runs import stage_runs
from probing.errors import UserError
from probing.result_tables import PUBLISHED

_CELL = ["model", "facet", "probe", "stream", "reduction", "sigma", "block", "control"]
_CURVE = ["model", "stream", "reduction", "sigma"]


def mark_curve(
    curve: pd.DataFrame, measures: pd.DataFrame | None = None, stages: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Add ``may_be_best`` and ``stage`` to the cells of a reward curve, so that its figure can be drawn from it alone.

    Args:
        curve: Result of :func:`probing.analysis.reward_curve.measure_curve`.
        measures: Result of :func:`probing.analysis.reward_curve.measures` on the same cells; without it there is no
            ``may_be_best``.
        stages: As for :func:`probing.analysis.similarity.stage_runs.stage_runs`; without it there is no ``stage``, and a model
            that is not in it has none.

    Returns:
        The same rows with ``may_be_best`` (1, 0, or NaN if not measured) and ``stage`` (None for cells without one).

    Raises:
        UserError: The stages do not cover the blocks of a curve.
    """
    marked = curve.copy()
    if measures is not None:
        best = measures[measures["metric"] == "may_be_best"].drop_duplicates(_CELL).set_index(_CELL)["value"]
        keys = pd.MultiIndex.from_frame(curve[_CELL])
        marked["may_be_best"] = best.reindex(keys).to_numpy() if len(best) else float("nan")
    if stages is not None:
        marked["stage"] = None
        cells = marked[marked["block"].notna() & (marked["control"] != PUBLISHED)]
        for key, part in cells.groupby(_CURVE, dropna=False):
            site: dict[str, Any] = dict(zip(_CURVE, key, strict=True))
            if "model" in stages and site["model"] not in set(stages["model"]):
                continue
            try:
                runs = stage_runs(sorted(part["block"].astype(int).unique()), stages, **site)
            except UserError as error:
                raise UserError(
                    f"The stages do not fit the curve of {site['model']}, {site['stream']}: {error}"
                ) from error
            marked.loc[part.index, "stage"] = [runs.of(int(block)) for block in part["block"]]
    return marked
