"""Tests run offline and on the CPU, with annotated types and shapes checked at every call."""

from __future__ import annotations

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    # Workers that each take all cores cost one another several times what they gain.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

import jaxtyping
import pytest
from hypothesis import settings

CHECKED_PACKAGES = ["probing.probes", "probing.statistics"]
"""Packages whose annotations are checked. The import hook is installed here, not by jaxtyping's pytest option: workers
of pytest-xdist do not apply that option."""

if imported := [name for name in CHECKED_PACKAGES if name in sys.modules]:
    raise RuntimeError(f"{imported} were imported before their annotations could be checked; import them later.")
jaxtyping.install_import_hook(CHECKED_PACKAGES, "beartype.beartype")

# Drawing a scene or fitting a probe takes longer than hypothesis' default of 200 ms on a busy machine.
settings.register_profile("project", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("project")

pytest_plugins = ["tests.tiny_sd3"]


@pytest.fixture
def unchecked_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave annotations unchecked, as for a user, so that a function's own error is raised."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
