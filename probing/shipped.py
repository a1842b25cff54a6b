"""Where the testbed's weights are: in a checkout of the project, or in a package of their own."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGE = "dit_probing_testbed"
"""The package that the project's folder ``testbed-weights`` makes."""


def _find() -> Path:
    checkout = Path(__file__).parent / "testbed" / "weights"
    if not checkout.is_dir() and (found := importlib.util.find_spec(PACKAGE)) and found.origin:
        return Path(found.origin).parent / "weights"
    return checkout


WEIGHTS = _find()
"""Folder of the testbed's weights, cards and generated pictures; it does not exist if neither is there."""
