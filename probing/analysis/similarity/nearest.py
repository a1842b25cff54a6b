"""Which rows of a table of similarities or stages speak of a series of features."""

from __future__ import annotations

import pandas as pd


def nearest_rows(
    table: pd.DataFrame,
    *,
    model: str | None = None,
    stream: str | None = None,
    reduction: str | None = None,
    sigma: float | None = None,
    any_stream: bool = False,
) -> pd.DataFrame:
    """Keep the rows of one place: the series' own where the table has it, else the nearest.

    A column that the table lacks is not asked about. Kept are rows of this model and its trained weights; of the number
    of stages that was chosen; of this stream and of the encoder that the reduction names; measured on images rather
    than along a trajectory; at the nearest noise level; by the measure that comes first.

    Args:
        table: Columns, where it has them: ``model``, ``control``, ``chosen``, ``stream``, ``part``, ``source``,
            ``sigma``, ``step``, ``measure``.
        model: Of the series. Likewise the next three.
        stream: Which stream.
        reduction: Which reduction, such as ``mean_t5``.
        sigma: Which noise level.
        any_stream: Whether another stream will do where the table lacks this one, as for stages.

    Returns:
        The rows; none where the table says nothing of this series.
    """
    rows = table
    if "model" in rows:
        rows = rows[rows["model"] == model]
    for column, wanted in (("control", "trained"), ("chosen", True)):
        if column in rows:
            rows = rows[rows[column] == wanted]
    if "stream" in rows and stream is not None:
        own = rows[rows["stream"] == stream]
        rows = own if len(own) or not any_stream else rows[rows["stream"] == rows["stream"].iloc[0]]
    if "part" in rows and len(rows):
        named = [part for part in rows["part"].unique() if str(reduction).endswith(f"_{part}")]
        rows = rows[rows["part"] == (named or list(rows["part"]))[0]]
    if "source" in rows and (rows["source"] == "images").any():
        rows = rows[rows["source"] == "images"]
    if "sigma" in rows and rows["sigma"].notna().any() and sigma is not None:
        nearest = min(rows["sigma"].dropna().unique(), key=lambda there: abs(there - sigma))
        rows = rows[rows["sigma"] == nearest]
    for column in ("step", "measure"):
        if column in rows and rows[column].notna().any():
            rows = rows[rows[column] == rows[column].dropna().iloc[0]]
    return rows
