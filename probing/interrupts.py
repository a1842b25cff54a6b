"""Ctrl-C and SIGTERM while a command is still importing: a line and an exit status, no traceback."""

from __future__ import annotations

import os
import signal
from typing import Any


def exit_at_signals() -> None:
    """End the process at SIGINT and SIGTERM with status 130 and 143 until the command handles them itself.

    Nothing has been opened or written yet, so there is nothing to clean up. Handlers that are not Python's own
    defaults stay.
    """
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    for number, default in defaults.items():
        if signal.getsignal(number) == default:
            signal.signal(number, _exit)


def _exit(number: int, frame: Any) -> None:
    os.write(2, b"Stopped while starting; nothing was done.\n")
    os._exit(128 + number)
