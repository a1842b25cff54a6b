"""The console command: ``dit-probing COMMAND`` is ``python -m probing.COMMAND``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from probing.commands import BAD_USAGE, OK
from probing.interrupts import exit_at_signals
from probing.options import nearest

COMMANDS = {
    "extract": "cache the features of every block",
    "measure": "measure an experiment",
    "figures": "draw every figure, and one page of all figures and tables",
    "audit": "find what would invalidate a measurement on preference data",
    "reward": "train, use and evaluate rewards",
    "score": "score rewards by every published rule",
    "store": "describe, check, repair or upgrade a store",
    "reproduce": "run the main result on the testbed",
    "claims": "find intervals in a text that no table has",
}
"""Modules of the commands, with what each does."""


def main(argv: Sequence[str] | None = None) -> int:
    name, *arguments = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
    if name in ("-h", "--help"):
        lines = "\n".join(f"  {command:<12}{does}" for command, does in COMMANDS.items())
        print(f"usage: dit-probing COMMAND [OPTIONS]\n\n{lines}\n\nEach has its own --help.")
        return OK
    if name not in COMMANDS:
        print(f"dit-probing: Unknown command {name!r:.80}: {nearest(name, COMMANDS)}", file=sys.stderr)
        return BAD_USAGE
    exit_at_signals()
    return int(module_of(name).main(arguments))


def module_of(name: str) -> Any:
    """Import the module of a command, with ``main`` and ``PARSER``: ``probing.NAME``, or its ``__main__`` if a room."""
    module = importlib.import_module(f"probing.{name}")
    return module if hasattr(module, "main") else importlib.import_module(f"probing.{name}.__main__")
