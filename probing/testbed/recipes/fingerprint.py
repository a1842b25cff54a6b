"""Identify the inputs of a recipe by one short hash, so that a later recipe detects a change."""

from __future__ import annotations

import hashlib
from pathlib import Path


def of_weights(*folders: Path) -> str:
    """Hash the bytes of all safetensors files under some folders, in the order of their paths."""
    total = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.safetensors")):
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]
