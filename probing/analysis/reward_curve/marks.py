"""What is marked on a reward curve: blocks that may be its best, and the borders of stages."""

from __future__ import annotations

import pandas as pd

from probing.analysis.similarity.stage_runs import stage_runs
from probing.errors import UserError

_CURVE = ["model", "facet", "probe", "stream", "reduction", "sigma", "block", "control"]


def mark_curve(
    curve: pd.DataFrame, measures: pd.DataFrame | None = None, stages: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Add ``may_be_best`` and ``stage`` to the cells of a reward curve, so that its figure can be drawn from it alone.

    Args:
        curve: Of :func:`probing.analysis.reward_curve`.
        measures: Of :func:`probing.analysis.measures.measures` on the same cells; without it nothing is said of which
            blocks may be the best.
        stages: As for :func:`probing.analysis.similarity.stage_runs.stage_runs`; without it, or of a model that it lacks, no
            stage is named.

    Returns:
        The same rows with ``may_be_best`` (1, 0, or NaN where it was not asked) and ``stage`` (None where there is
        none), if each can be said.
    """
    marked = curve.copy()
    if measures is not None:
        best = measures[measures["metric"] == "may_be_best"].drop_duplicates(_CURVE)
        told = best.set_index(_CURVE)["value"]
        keys = pd.MultiIndex.from_frame(curve[_CURVE])
        marked["may_be_best"] = told.reindex(keys).to_numpy() if len(told) else float("nan")
    if stages is not None:
        marked["stage"] = None
        cells = marked["block"].notna()
        for _, part in marked[cells].groupby(["model", "stream", "reduction", "sigma"], dropna=False):
            where = {name: part[name].iloc[0] for name in ("model", "stream", "reduction", "sigma")}
            if "model" in stages and where["model"] not in set(stages["model"]):
                continue
            blocks = sorted(part["block"].astype(int).unique())
            try:
                runs = stage_runs(blocks, stages, **where)
            except UserError as error:
                raise UserError(
                    f"The stages do not fit the curve of {where['model']}, {where['stream']}: {error}"
                ) from error
            marked.loc[part.index, "stage"] = [runs.of(int(block)) for block in part["block"]]
    return marked
