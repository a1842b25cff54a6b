"""Read result tables, from Parquet or from the CSV beside a figure, and select their rows.

Names of version 0.1 become the present ones.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from probing.errors import UserError
from probing.table_files import read_parquet

_TEXT = (
    "model",
    "data",
    "facet",
    "store",
    "stage",
    "other_stage",
    "baseline_chosen",
    "prompt",
    "prompt_id",
    "pair_id",
    "item_id",
)
_INTEGER = (
    "block",
    "baseline_block",
    "first",
    "second",
    "channels",
    "draws",
    "n_models",
    "n_sizes",
    "step",
    "stages_step",
    "seed",
    "n_pairs",
    "n_prompts",
    "n_train_pairs",
    "n_items",
    "n_block_pairs",
)
_RENAMED = {
    "p": "p_value",
    "p_holm": "p_value_holm",
    "p_mcnemar": "p_value_mcnemar",
    "says": "statement",
    "place": "site",
    **{
        f"{name}_p{end}": f"{name}_p_value{end}" for name in ("gain", "own_gain", "difference") for end in ("", "_holm")
    },
}
"""Columns of version 0.1, and their present names."""
_RENAMED_CONTROLS = {"none": "trained", "looks": "image stats"}
DECIDED = ("above", "below")
"""Verdicts that figures mark."""
_TESTED = {"": "difference", "gain_": "gain", "own_gain_": "own_gain", "difference_": "difference"}
"""Prefix of the columns of a test, and the column of its estimate."""
_CELL_COLUMNS = ("cell", "chosen_cell", "baseline_cell")


def read_result(path: Path, made_by: str, columns: Collection[str] = ()) -> pd.DataFrame:
    """Read a ``.parquet`` or ``.csv`` result table.

    Args:
        path: The file.
        made_by: The command that writes such a table, for the message.
        columns: Required columns.

    Raises:
        UserError: There is no such file, it is damaged, or a column is missing.
    """
    table = _read_csv(path, made_by) if path.suffix == ".csv" and path.is_file() else read_parquet(path, made_by)
    table = _with_present_names(table)
    missing = [name for name in columns if name not in table]
    if missing:
        raise UserError(f"The table {path} has no {', '.join(missing)}; it needs {', '.join(columns)}.")
    return table


def _read_csv(path: Path, made_by: str) -> pd.DataFrame:
    try:
        # A facet may be called NA, and a model 007: names are text, and only an empty cell is missing.
        table = pd.read_csv(path, dtype=dict.fromkeys(_TEXT, str), keep_default_na=False, na_values=[""])
        # Latents have no block, and images no step: CSV would make all such numbers fractions.
        return table.astype({name: "Int64" for name in _INTEGER if name in table})
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no CSV table ({reason}); make it again by {made_by}.") from error


def _with_present_names(table: pd.DataFrame) -> pd.DataFrame:
    """Rename columns, controls and cells of version 0.1."""
    renamed = {old: new for old, new in _RENAMED.items() if old in table and new not in table}
    cells = {str(name): f"trained/{str(name).removeprefix('none/')}" for name in table if str(name).startswith("none/")}
    table = table.rename(columns={**renamed, **cells})
    if "control" in table and table["control"].isin(list(_RENAMED_CONTROLS)).any():
        table = table.assign(control=table["control"].replace(_RENAMED_CONTROLS))
    table = _with_verdicts(table)
    for name in _CELL_COLUMNS:
        if name in table and pd.api.types.is_string_dtype(table[name].dropna()):
            table = table.assign(**{name: table[name].str.replace(r"^none/", "trained/", regex=True)})
    return table


def _with_verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Add the verdicts and draws that tables of version 0.1 lack; the corrected p-values were there."""
    added: dict[str, Any] = {}
    for prefix, estimate in _TESTED.items():
        if {f"{prefix}p_value_holm", estimate} <= set(table) and f"{prefix}verdict" not in table:
            significant = table[f"{prefix}p_value_holm"] <= 0.05
            direction = (table[estimate] > 0).map({True: DECIDED[0], False: DECIDED[1]})
            added[f"{prefix}verdict"] = direction.where(significant, "not distinguished")
    if "control" in table and {"value", "cv_accuracy"} <= set(table):
        added |= {name: float("nan") for name in ("draws", "draw_low", "draw_high") if name not in table}
    return table.assign(**added)


PUBLISHED = "published"
"""The control of rows with published values; their ``citation`` names the paper and its table or figure."""


def measured_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Drop the rows with published values."""
    return table[table["control"] != PUBLISHED] if "control" in table else table


def published_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows with published values alone."""
    return table[table["control"] == PUBLISHED] if "control" in table else table.iloc[:0]


def best_cell(cells: pd.DataFrame) -> pd.Series:
    """Pick the cell of highest cross-validated training accuracy; the first of equals, never by its test value."""
    return cells.iloc[int(cells["cv_accuracy"].to_numpy(dtype=float).argmax())]


def over_training(points: pd.DataFrame) -> pd.DataFrame:
    """Keep the trained points along a training: checkpoints of one architecture, one at each of its steps.

    Further seeds end where the first one does; the first given represents the training.
    """
    checkpoints = points[(points["control"] == "trained") & points["steps"].notna()]
    checkpoints = checkpoints.drop_duplicates(["config_hash", "facet", "stream", "reduction", "sigma", "head", "steps"])
    return checkpoints[checkpoints.groupby("config_hash", dropna=False)["steps"].transform("nunique") > 1]
