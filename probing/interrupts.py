"""Handle ctrl-C and SIGTERM while a command imports its modules: one line and an exit status, no traceback."""

from __future__ import annotations

import os
import signal
from typing import Any


def exit_at_signals() -> None:
    """Exit at SIGINT and SIGTERM with status 130 and 143, until the command installs its own handlers.

    No file is open yet, so there is nothing to clean up. Handlers other than Python's defaults stay.
    """
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    for number, default in defaults.items():
        if signal.getsignal(number) == default:
            signal.signal(number, _exit)


def _exit(number: int, frame: Any) -> None:
    os.write(2, b"Stopped while starting; nothing was done.\n")
    os._exit(128 + number)
