"""Probe what frozen text-to-image transformers know of human preferences, block by block."""

import sys

if sys.argv[:1] == ["-m"]:
    # Python sets this name while it looks for the module of ``python -m probing.X``: a command is starting.
    from probing.interrupts import exit_at_signals

    exit_at_signals()
