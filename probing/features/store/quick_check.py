"""Check and repair a store by documents and sizes of files alone, before an extraction goes on with it."""

from __future__ import annotations

from pathlib import Path

from probing.errors import UserError
from probing.features.store.check import Problem, check, repair
from probing.features.store.lock import locked


def repair_quickly(output: Path) -> list[str]:
    """Find lost and cut files without reading any in full, remove them from the records, and describe them."""
    if not output.is_dir() or not any(output.iterdir()):
        return []
    if (problems := check_quickly(output)) and any(problem.file != pairs_name(output) for problem in problems):
        with locked(output):
            repair(output, [problem for problem in problems if problem.file != pairs_name(output)])
    return [str(problem) for problem in problems]


def check_quickly(output: Path) -> list[Problem]:
    """List lost and cut files; none for a folder that is no store of this schema."""
    try:
        return check(output, deep=False)
    except UserError:
        # A foreign folder or another schema: opening it raises the right message.
        return []


def pairs_name(output: Path) -> str:
    """Name the file of pairs beside a store."""
    return output.name + ".pairs.parquet"
