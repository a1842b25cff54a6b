"""Write the card of a set of weights: ``card.json`` holds the measurements, ``README.md`` presents them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from probing.files import write_text
from probing.testbed.rates import format_interval


def write_measurements(folder: Path, card: Mapping[str, Any]) -> None:
    """Write ``card.json``."""
    write_text(folder / "card.json", json.dumps(card, indent=1) + "\n")


def write_card(folder: Path, template: str, card: Mapping[str, Any], **context: Any) -> Path:
    """Write ``card.json`` and ``README.md``.

    Args:
        folder: Holds the weights.
        template: As for :func:`render_card`.
        card: The measurements, JSON values only.
        context: Further variables of the template.

    Returns:
        The path of ``README.md``.
    """
    write_measurements(folder, card)
    readme = folder / "README.md"
    write_text(readme, render_card(template, card, **context))
    return readme


def render_card(template: str, card: Mapping[str, Any], **context: Any) -> str:
    """Render the Markdown of a card.

    Args:
        template: Name of a template beside this module, without ``.md.jinja``.
        card: The content of ``card.json``.
        context: Further variables of the template.
    """
    return _environment().get_template(f"{template}.md.jinja").render(card=card, **context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["interval"] = format_interval
    environment.filters["thousands"] = "{:,}".format
    environment.filters["megabytes"] = lambda size: f"{size / 1e6:.1f} MB"
    environment.filters["json"] = json.dumps
    return environment
