"""The families that are supported. Add one: write its file, and add the file's module to :data:`BUILT_IN`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from probing.backbones.base import Family
from probing.errors import UserError

BUILT_IN = (
    "probing.backbones.families.sd3",
    "probing.backbones.families.flux",
    "probing.backbones.families.qwen_image",
    "probing.backbones.families.z_image",
    "probing.backbones.families.flux2",
    "probing.backbones.families.flux2_dev",
    "probing.backbones.families.chroma",
)
"""Modules with a ``FAMILY`` each."""
_FAMILIES: dict[str, Family] = {}


def register_family(family: Family) -> None:
    """Support a family: its pipeline folders can be resolved by path, and its entries by name.

    Args:
        family: It replaces the registered family of the same pipeline class.
    """
    _FAMILIES[family.pipeline] = family


def families() -> tuple[Family, ...]:
    """Return all registered families, built-in ones first."""
    return tuple(_FAMILIES.values())


def family_of(folder: Path, index: Mapping[str, Any]) -> Family:
    """Return the family of a pipeline folder.

    Args:
        folder: For the message.
        index: Content of its ``model_index.json``.

    Raises:
        UserError: Its pipeline class is not supported.
    """
    name = index.get("_class_name")
    family = _FAMILIES.get(name) if isinstance(name, str) else None
    if family is None:
        raise UserError(
            f"{folder} holds a {name!s:.80}, and supported are: {', '.join(_FAMILIES)}; docs/architecture.md says "
            f"how to add a family."
        )
    return family


for _module in BUILT_IN:
    register_family(import_module(_module).FAMILY)
