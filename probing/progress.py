"""Progress of long work: a bar on a terminal, else a plain line from time to time; and events for logs and trackers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO, runtime_checkable

FIRST_SECONDS, LINE_SECONDS = 10.0, 30.0
"""Seconds until the first plain line, and between further ones."""
EVENT_SECONDS = 10.0
"""Seconds between events of one work."""

Sink = Callable[[dict[str, Any]], None]
"""Takes events: ``event`` is its name, and the rest belongs to it."""
_sinks: list[Sink] = []
_quiet = False


def send_events(sink: Sink, *, instead: bool = False) -> None:
    """Send the events of this process to a sink too; ``instead`` of bars and lines."""
    global _quiet
    _sinks.append(sink)
    _quiet = _quiet or instead


def send(event: str, **values: Any) -> None:
    """Send an event to the sinks, if there are any."""
    for sink in _sinks:
        sink({"event": event, **values})


@contextmanager
def without_events() -> Iterator[None]:
    """Forget the sinks at the end."""
    global _quiet
    try:
        yield
    finally:
        _sinks.clear()
        _quiet = False


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
    shown = enabled and not _quiet
    if shown and not _sinks and stream is not None and stream.isatty():
        from tqdm import tqdm

        with tqdm(total=total, desc=desc, unit=f" {unit}", file=stream) as bar:
            yield bar
        return
    lines = _Lines(total, desc, unit, stream if shown else None, clock)
    yield lines
    lines.end()


class _Lines:
    def __init__(self, total: int, desc: str, unit: str, stream: TextIO | None, clock: Callable[[], float]) -> None:
        self._total, self._desc, self._unit, self._stream, self._clock = total, desc, unit, stream, clock
        self._done, self._start = 0, clock()
        self._next_line, self._next_event = self._start + FIRST_SECONDS, self._start

    def update(self, n: int = 1) -> None:
        """Count ``n`` more, and write a line and send an event if they are due."""
        self._done += n
        now = self._clock()
        if _sinks and now >= self._next_event:
            self._next_event = now + EVENT_SECONDS
            self._send(now)
        if now < self._next_line or self._done >= self._total:
            return
        self._next_line = now + LINE_SECONDS
        rate = self._done / (now - self._start)
        left = f", {format_duration((self._total - self._done) / rate)} left" if rate > 0 else ""
        self._write(f"{self._desc}: {self._done:,} of {self._total:,} {self._unit}, {format_rate(rate)}/s{left}")

    def end(self) -> None:
        """Write the last line, if the work took long."""
        now = self._clock()
        self._send(now)
        if now - self._start >= FIRST_SECONDS:
            self._write(f"{self._desc}: {self._done:,} {self._unit} in {format_duration(now - self._start)}")

    def _send(self, now: float) -> None:
        seconds = now - self._start
        send(
            "progress",
            work=self._desc,
            done=self._done,
            total=self._total,
            unit=self._unit,
            seconds=round(seconds, 3),
            per_second=round(self._done / seconds, 6) if seconds > 0 else None,
        )

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
