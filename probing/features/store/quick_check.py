"""Check and repair a store by documents and sizes of files alone, before an extraction goes on with it."""

from __future__ import annotations

from probing.errors import UserError
from probing.features.store.check import Problem, check, repair
from probing.features.store.growth import is_used
from probing.features.store.leases import Busy, Leases
from probing.paths import AnyPath


def repair_quickly(output: AnyPath) -> list[str]:
    """Find lost and cut files without reading any in full, remove them from the records, and describe them."""
    if not is_used(output):
        return []
    if (problems := check_quickly(output)) and any(problem.file != pairs_name(output) for problem in problems):
        try:
            with Leases(output).alone("repairing the store"):
                repair(output, [problem for problem in problems if problem.file != pairs_name(output)])
        except Busy:
            # What another process is just writing looks damaged.
            return []
    return [str(problem) for problem in problems]


def check_quickly(output: AnyPath) -> list[Problem]:
    """List lost and cut files; none for a folder that is no store of this schema."""
    try:
        return check(output, deep=False)
    except UserError:
        # A foreign folder or another schema: opening it raises the right message.
        return []


def pairs_name(output: AnyPath) -> str:
    """Name the file of pairs beside a store."""
    return output.name + ".pairs.parquet"
