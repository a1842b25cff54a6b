"""Select one segmentation from a table of stages, and list its blocks."""

from __future__ import annotations

import pandas as pd

from probing.analysis.similarity.tables import at_site
from probing.errors import UserError


def select_stages(
    table: pd.DataFrame,
    *,
    measure: str | None = None,
    sigma: float | None = None,
    step: int | None = None,
    source: str | None = None,
    stream: str = "image",
    part: str | None = None,
    control: str = "trained",
    number: int | None = None,
) -> pd.DataFrame:
    """Select one segmentation from a table of stages, one row a stage from shallow to deep.

    For an argument that is None the first value in the table is taken; images come before trajectories, and the lowest
    noise level first.

    Args:
        table: Stages of :func:`probing.analysis.similarity.find_stages`, or their CSV.
        measure: One of :data:`probing.features.token_similarity.MEASURES`.
        sigma: Noise level.
        step: 0-indexed step of a trajectory.
        source: ``images`` or ``trajectory``.
        stream: ``image`` or ``text``.
        part: ``all``, ``clip`` or ``t5``.
        control: ``trained`` or ``random-init``.
        number: Number of stages; the chosen one if None.

    Raises:
        UserError: The table has no such stages.
    """
    requested = {
        "source": source,
        "part": part,
        "measure": measure,
        "sigma": sigma,
        "step": step,
        "stream": stream,
        "control": control,
        "number": number,
    }
    requested = {name: value for name, value in requested.items() if value is not None}
    rows = table if number is not None else table[table["chosen"].astype(bool)]
    for name, value in requested.items():
        rows = rows[(rows[name] == value).fillna(False)]
    if rows.empty:
        values = ", ".join(f"{name} {value}" for name, value in requested.items())
        raise UserError(
            f"The table of stages has none with {values}; python -m probing.measure similarity measures them."
        )
    rows = rows.sort_values(["source", "sigma", "first_block"], kind="stable")
    first = rows.iloc[0]
    of_model = rows["model"].isna() if pd.isna(first["model"]) else rows["model"] == first["model"]
    return rows[at_site(rows, dict(first)) & of_model].reset_index(drop=True)


def blocks_of_stages(stages: pd.DataFrame) -> dict[str, list[int]]:
    """Return the blocks of each stage of one segmentation, such as ``{"B1": [0, 1], "B2": [2, 3, 4]}``."""
    return {
        str(name): list(range(int(first), int(last) + 1))
        for name, first, last in zip(stages["stage"], stages["first_block"], stages["last_block"], strict=True)
    }
