"""Select the rows of a table of similarities or stages that apply to a curve."""

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
    """Select the rows of the site nearest to a curve.

    Selected are rows of the model and its trained weights; of the chosen number of stages; of the stream and of the
    encoder that the reduction names; of images rather than a trajectory; at the nearest noise level; of the first
    measure. Columns that the table lacks are not compared.

    Args:
        table: Optional columns: ``model``, ``control``, ``chosen``, ``stream``, ``part``, ``source``, ``sigma``,
            ``step``, ``measure``.
        model: Model of the curve.
        stream: Stream of the curve.
        reduction: Reduction of the curve, such as ``mean_t5``.
        sigma: Noise level of the curve.
        any_stream: Accept another stream if the table lacks this one, as for stages.

    Returns:
        The rows; none if the table has none for this curve.
    """
    rows = table
    if "model" in rows:
        rows = rows[rows["model"] == model]
    for column, value in (("control", "trained"), ("chosen", True)):
        if column in rows:
            rows = rows[rows[column] == value]
    if "stream" in rows and stream is not None:
        of_stream = rows[rows["stream"] == stream]
        rows = of_stream if len(of_stream) or not any_stream else rows[rows["stream"] == rows["stream"].iloc[0]]
    if "part" in rows and len(rows):
        parts = [part for part in rows["part"].unique() if str(reduction).endswith(f"_{part}")]
        rows = rows[rows["part"] == (parts or list(rows["part"]))[0]]
    if "source" in rows and (rows["source"] == "images").any():
        rows = rows[rows["source"] == "images"]
    if "sigma" in rows and rows["sigma"].notna().any() and sigma is not None:
        nearest = min(rows["sigma"].dropna().unique(), key=lambda level: abs(level - sigma))
        rows = rows[rows["sigma"] == nearest]
    for column in ("step", "measure"):
        if column in rows and rows[column].notna().any():
            rows = rows[rows[column] == rows[column].dropna().iloc[0]]
    return rows
