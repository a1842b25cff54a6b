"""Names of the rules by which pairs are split and leaks between splits are handled."""

from __future__ import annotations

from typing import Literal, get_args

Leaks = Literal["refuse", "drop", "keep"]
LEAKS: tuple[str, ...] = get_args(Leaks)
SplitRule = Literal["official", "prompt", "source-model"]
SPLIT_RULES: tuple[str, ...] = get_args(SplitRule)
Duplicates = Literal["drop", "keep"]
