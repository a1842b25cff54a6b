"""Read pairs of a user: a CSV, Parquet or JSON-lines file and its pictures."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from probing.errors import UserError, listed
from probing.paths import reached
from probing.preferences.comparisons import choice_of_chosen, filled_text
from probing.preferences.images.sources import ImageFolder, ImageSource
from probing.preferences.tables.column_types import Kind, numbers
from probing.preferences.tables.table_file import SUFFIXES, read_table, refuse_missing

__all__ = ["RESERVED", "SUFFIXES", "read"]

_NEEDED: dict[str, Kind] = {"prompt": "prompt", "chosen": "path", "rejected": "path"}
_KINDS: dict[str, Kind] = {
    **_NEEDED,
    "prompt_id": "id",
    "pair_id": "id",
    "list_id": "id",
    "split": "label",
    "facet": "label",
    "source_model_chosen": "label",
    "source_model_rejected": "label",
    "tie": "truth",
    "margin": "number",
}
"""Types of the columns with a meaning; all others are plain."""
RESERVED = ("first", "second", "choice", "image_chosen", "image_rejected")
"""Names of derived columns, which a file cannot have; names that end in ``_first`` or ``_second`` are reserved too."""
_SIDES = ("_first", "_second")


def read(path: Path, *, root: Path | None = None) -> tuple[pd.DataFrame, ImageSource]:
    """Read ``prompt, chosen, rejected[, margin, prompt_id, split, facet, tie, …]``.

    Prompts, paths and ids are texts exactly as written: ``007`` and ``NA`` too. Columns that end in
    ``_chosen`` and ``_rejected``, such as ``source_model_chosen``, come in twos and follow their picture.

    Args:
        path: The file.
        root: Folder or URL that image paths are relative to (default: the file's folder).

    Raises:
        UserError: The file is missing or no table; a column is missing, reserved or of another type; or a record has a
            gap.
    """
    with reached(path):
        is_there = path.is_file()
    if not is_there:
        raise UserError(f"There is no file {path}; --data takes a data set's name or a file of pairs.")
    table = read_table(path, lambda column: _KINDS.get(column, "plain"))
    refuse_missing(path, table, tuple(_NEEDED))
    _refuse_reserved(path, table)
    if len(table) == 0:
        raise UserError(f"There are no pairs in {path}; check the file.")
    for column, kind in _NEEDED.items():
        table[column] = filled_text(path.stem, table[column], kind)
    if "margin" in table:
        ids = table["pair_id"] if "pair_id" in table else "pair" + table.index.astype(str).to_series(table.index)
        table["margin"] = numbers(table["margin"], ids)
    return choice_of_chosen(path.stem, table), ImageFolder(root or path.parent)


def _refuse_reserved(path: Path, table: pd.DataFrame) -> None:
    reserved = [column for column in table if column in RESERVED or str(column).endswith(_SIDES)]
    if reserved:
        raise UserError(
            f"{path} has the columns {listed(reserved)}, which are reserved; rename or remove them "
            f"({', '.join(RESERVED)}, and names that end in {' or '.join(_SIDES)} are derived; columns of the two "
            f"sides end in _chosen and _rejected)."
        )
    for one, other in (("_chosen", "_rejected"), ("_rejected", "_chosen")):
        for column in map(str, table):
            partner = f"{column.removesuffix(one)}{other}"
            if column.endswith(one) and partner not in table:
                raise UserError(
                    f"{path} has the column {column} without {partner}; give both, or name it without {one}."
                )
