"""Stages given as a setting: a table, its path, or runs of blocks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from probing.analysis.engine.table_input import TableInput, load_table
from probing.analysis.similarity.stage_runs import parse_stages

MADE_BY = "python -m probing.measure similarity"


def load_stages(stages: TableInput) -> pd.DataFrame:
    """Return stages from a table, its path, or text like ``0-2,3-5,6-7``.

    Raises:
        UserError: The table cannot be read or lacks a column, or the text has another form.
    """
    if isinstance(stages, str) and Path(stages).suffix not in (".parquet", ".csv"):
        return parse_stages(stages)
    return load_table(stages, MADE_BY, ("stage", "first_block", "last_block"))
