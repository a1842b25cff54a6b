"""Tests run offline and on the CPU, with annotated types and shapes checked at every call."""

from __future__ import annotations

import gc
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import jaxtyping
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits

from tests.type_checks import check

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    # Workers that each take all cores cost one another several times what they gain.
    threads = max(1, (os.cpu_count() or 1) // int(workers))
    # For commands and libraries that start later, and for NumPy, which a plugin has loaded before.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    threadpool_limits(threads)


@check
def _load_beartype(value: int) -> None:
    """Decorate once now: beartype loads the rest of itself then, and cannot after nnsight has patched ``object``."""


# Drawing a scene or fitting a probe takes longer than hypothesis' default of 200 ms on a busy machine.
settings.register_profile("all", deadline=None, max_examples=40, derandomize=True)
settings.register_profile("fast", settings.get_profile("all"), max_examples=15)
settings.load_profile("all")

LONGEST = ("test_notebooks.py", "test_kills.py")
SHAPES_CHECKED = ("analysis/engine", "features", "probes", "statistics", "test_checked_shapes.py")
"""Tests of what computes on arrays, whose annotations ``make test`` checks too: a check costs more than most calls."""


def pytest_configure(config: pytest.Config) -> None:
    """Draw fewer examples in ``make test``, which leaves out what is slow."""
    settings.load_profile("fast" if config.option.markexpr else "all")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Leave the libraries' objects out of every later search for garbage: there are millions."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Check annotations in every test of ``make test-all``, which selects no marker, in some of ``make test``."""
    path = item.path.relative_to(Path(__file__).parent).as_posix()
    checked = not item.config.option.markexpr or path.startswith(SHAPES_CHECKED)
    jaxtyping.config.update("jaxtyping_disable", not checked)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that no worker ends with one while the others wait."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


pytest_plugins = ["tests.fakes.blank_figures", "tests.fakes.bucket"]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder of SD3.5's classes, as ``save_pretrained`` writes it."""
    # The process that only hands out tests needs none of the libraries.
    from tests.fakes.tiny_sd3 import build_pipeline

    folder = tmp_path_factory.mktemp("models") / "tiny-sd3"
    build_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def unchecked_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave annotations unchecked, as for a user, so that a function's own error is raised."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
