"""What a step was fed, as one short hash, so that a later step notices when it has become another."""

from __future__ import annotations

import hashlib
from pathlib import Path


def of_weights(*folders: Path) -> str:
    """Hash the safetensors in some folders, subfolders included: their bytes, in the order of their names."""
    total = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.safetensors")):
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]
