"""Types and bounds of the entries of a part's configuration that decide a size or a value."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probing.errors import UserError


@dataclass(frozen=True)
class Rule:
    """What one entry of a configuration may be.

    Attributes:
        text: The allowed values, for messages.
        allows: Whether a value is one of them.
        required: Whether the entry must be there.
        or_null: Whether null is allowed too.
    """

    text: str
    allows: Callable[[Any], bool]
    required: bool = True
    or_null: bool = False

    def check(self, path: Path, key: str, value: Any) -> None:
        """Raise a UserError unless the value is allowed."""
        if not ((self.or_null and value is None) or self.allows(value)):
            text = f"{self.text}{' or null' if self.or_null else ''}"
            raise UserError(f"{path}: {key} must be {text}, got {reprlib.repr(value)}; copy the file again.")


def whole(least: int, most: int, **options: bool) -> Rule:
    """Allow a whole number within bounds."""
    return Rule(
        f"a whole number from {least} to {most}", lambda value: type(value) is int and least <= value <= most, **options
    )


def wholes(least: int, most: int, longest: int, **options: bool) -> Rule:
    """Allow a list of whole numbers within bounds."""
    one = whole(least, most)
    return Rule(
        f"a list of at most {longest} whole numbers from {least} to {most}",
        lambda values: isinstance(values, list | tuple) and len(values) <= longest and all(map(one.allows, values)),
        **options,
    )


def real(least: float, most: float, **options: bool) -> Rule:
    """Allow a finite number within bounds."""
    return Rule(
        f"a number from {least:g} to {most:g}",
        lambda value: type(value) in (int, float) and math.isfinite(value) and least <= value <= most,
        **options,
    )


def reals(longest: int, **options: bool) -> Rule:
    """Allow a list of finite numbers."""
    one = real(-1e9, 1e9)
    return Rule(
        f"a list of at most {longest} numbers",
        lambda values: isinstance(values, list | tuple) and len(values) <= longest and all(map(one.allows, values)),
        **options,
    )


def text(**options: bool) -> Rule:
    """Allow a string."""
    return Rule("a string", lambda value: isinstance(value, str), **options)


def texts(longest: int, **options: bool) -> Rule:
    """Allow a list of strings."""
    return Rule(
        f"a list of at most {longest} strings",
        lambda values: (
            isinstance(values, list | tuple)
            and len(values) <= longest
            and all(isinstance(value, str) for value in values)
        ),
        **options,
    )


def flag() -> Rule:
    """Allow true or false, or no entry."""
    return Rule("true or false", lambda value: isinstance(value, bool), required=False)


CHANNELS = whole(1, 2**18)
LAYERS = whole(1, 1000)
HEADS = whole(1, 1024)


def check_entries(path: Path, rules: Mapping[str, Rule], config: Mapping[str, Any]) -> None:
    """Check types and bounds of a part's configuration.

    Args:
        path: The file, for messages.
        rules: By entry.
        config: Content of the file.

    Raises:
        UserError: An entry is missing, has another type or is out of bounds (the first is named), or the weights are
            quantised.
    """
    if config.get("quantization_config") is not None:
        raise UserError(
            f"{path} has a quantization_config, and quantised weights are not supported: give the weights in 16 or 32 "
            f"bits, such as those of the model that was quantised."
        )
    missing = [key for key, rule in rules.items() if rule.required and key not in config]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; copy the file again.")
    for key, rule in rules.items():
        if key in config:
            rule.check(path, key, config[key])
