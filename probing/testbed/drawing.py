"""The version of the testbed's drawn pictures: the code that draws them."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from probing.testbed import generated

_SOURCES = ("degradations.py", "generated.py", "preferences.py", "render.py", "scenes.py", "shortcut.py")


@cache
def drawing_version() -> str:
    """Return 16 hex characters that change with the code that draws pictures, and with the shipped ones."""
    digest = hashlib.blake2b(str(generated.digest()).encode(), digest_size=8)
    for name in _SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()
