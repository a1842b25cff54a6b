"""Drop single log lines of a library while a block of code runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


@contextmanager
def collected_warnings(*loggers: str) -> Iterator[list[str]]:
    """Collect the warnings of some loggers instead of logging them."""
    lines: list[str] = []

    def collect(record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        lines.append(record.getMessage())
        return False

    sources = {logger: logger.level for logger in map(logging.getLogger, loggers)}
    for source in sources:
        source.addFilter(collect)
        source.setLevel(logging.WARNING)
    try:
        yield lines
    finally:
        for source, level in sources.items():
            source.removeFilter(collect)
            source.setLevel(level)


@contextmanager
def dropped_log_lines(logger: str, *parts: str) -> Iterator[None]:
    """Drop the lines of one logger that contain one of these parts; log every other line as before."""
    source = logging.getLogger(logger)

    def keep(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return not any(part in message for part in parts)

    source.addFilter(keep)
    try:
        yield
    finally:
        source.removeFilter(keep)


def quiet_imports() -> AbstractContextManager[None]:
    """Import classes of a pipeline without the warning on image processors, which are not used here."""
    return dropped_log_lines("transformers.utils.import_utils", "requires torchvision")
