"""Annotated types and shapes are checked in the tests, and no annotation escapes the check."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import jaxtyping
import numpy as np
import pytest

from probing.probes import LogisticProbe, check_apart
from probing.statistics import LEVEL, holm, outcomes

PACKAGES = {"probing.analysis", "probing.features", "probing.interventions", "probing.probes", "probing.statistics"}
IMPORTED_LATE = {
    "DeviceRows.__init__",
    "ExtractionOptions.resolve",
    "NeuralProbe._head",
    "MLPProbe._head",
    "AttentionProbe._head",
    "plan_similarity",
    "measure_similarity",
    "_subject",
    "measure_token_maps",
}
"""Functions with an annotation from torch or from the backbones, which their modules import when they are called."""


def functions(package: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield every function and method that a package defines, with its qualified name."""
    root = importlib.import_module(package)
    modules = [root, *map(importlib.import_module, submodules(root))]
    for module in modules:
        owners = [
            kind for kind in vars(module).values() if inspect.isclass(kind) and kind.__module__ == module.__name__
        ]
        for owner in (module, *owners):
            for value in vars(owner).values():
                function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
                # Methods that dataclass and NamedTuple generate are in no file.
                if inspect.isfunction(function) and inspect.unwrap(function).__code__.co_filename == module.__file__:
                    yield function.__qualname__, function


def submodules(package: Any) -> list[str]:
    return [found.name for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]


def test_wrong_shapes_are_refused():
    with pytest.raises(jaxtyping.TypeCheckError, match="choices"):
        outcomes(np.zeros(3), np.zeros(2))
    with pytest.raises(jaxtyping.TypeCheckError, match="Parameter annotations"):
        LogisticProbe().fit(np.zeros((3, 2)), np.zeros(2))


def test_wrong_types_are_refused():
    with pytest.raises(jaxtyping.TypeCheckError):
        holm([LEVEL])
    with pytest.raises(jaxtyping.TypeCheckError):
        check_apart(["a"], ["b"], 1)


def test_every_function_is_checked(pytestconfig):
    """An annotation that cannot be evaluated counts as Any, and checks nothing."""
    *packages, checker = pytestconfig.getoption("jaxtyping_packages").split(",")
    assert checker == "tests.type_checks.check" and set(packages) >= PACKAGES
    unchecked = set()
    for name, function in [pair for package in packages for pair in functions(package)]:
        assert hasattr(function, "__wrapped__"), f"{name} is not checked"
        try:
            get_type_hints(function, include_extras=True)
        except NameError:
            unchecked.add(name)
    assert unchecked <= IMPORTED_LATE
