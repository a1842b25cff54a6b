"""Progress of long work: a bar on a terminal, otherwise a plain line from time to time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO, runtime_checkable

from tqdm import tqdm

FIRST_SECONDS, LINE_SECONDS = 10.0, 30.0
"""Seconds until the first plain line, and between further ones."""


@runtime_checkable
class Progress(Protocol):
    """Counter that :func:`progress` yields."""

    def update(self, n: int = 1) -> object:
        """Count ``n`` more as done."""
        ...


@contextmanager
def progress(
    total: int,
    desc: str,
    unit: str,
    *,
    enabled: bool = True,
    stream: TextIO | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Progress]:
    """Show progress on stderr while the block runs.

    Args:
        total: Number of units.
        desc: Name of the work.
        unit: Name of the units, in the plural.
        enabled: Whether to show anything.
        stream: Output; stderr if None.
        clock: Returns the time in seconds.
    """
    stream = sys.stderr if stream is None else stream
    if enabled and stream is not None and stream.isatty():
        with tqdm(total=total, desc=desc, unit=f" {unit}", file=stream) as bar:
            yield bar
        return
    lines = _Lines(total, desc, unit, stream if enabled else None, clock)
    yield lines
    lines.end()


class _Lines:
    def __init__(self, total: int, desc: str, unit: str, stream: TextIO | None, clock: Callable[[], float]) -> None:
        self._total, self._desc, self._unit, self._stream, self._clock = total, desc, unit, stream, clock
        self._done, self._start = 0, clock()
        self._next_line = self._start + FIRST_SECONDS

    def update(self, n: int = 1) -> None:
        """Count ``n`` more, and write a line if one is due."""
        self._done += n
        now = self._clock()
        if now < self._next_line or self._done >= self._total:
            return
        self._next_line = now + LINE_SECONDS
        rate = self._done / (now - self._start)
        left = f", {format_duration((self._total - self._done) / rate)} left" if rate > 0 else ""
        self._write(f"{self._desc}: {self._done:,} of {self._total:,} {self._unit}, {format_rate(rate)}/s{left}")

    def end(self) -> None:
        """Write the last line, if the work took long."""
        seconds = self._clock() - self._start
        if seconds >= FIRST_SECONDS:
            self._write(f"{self._desc}: {self._done:,} {self._unit} in {format_duration(seconds)}")

    def _write(self, line: str) -> None:
        if self._stream is not None:
            print(line, file=self._stream, flush=True)


def format_rate(rate: float) -> str:
    """Write a number a second."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.2g}"


def format_duration(seconds: float) -> str:
    """Write a duration in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
