"""Progress without a terminal: a plain line from time to time; with one, a bar."""

from __future__ import annotations

import io

import pytest

from probing.progress import progress, send_events, without_events


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(total, seconds_each, stream, **options):
    clock = Clock()
    with progress(total, "probes", "fits", stream=stream, clock=clock, **options) as bar:
        for _ in range(total):
            clock.now += seconds_each
            bar.update()
    return stream.getvalue().splitlines()


def test_lines_come_after_ten_seconds_then_every_thirty_and_at_the_end():
    assert run(60, 2.0, io.StringIO()) == [
        "probes: 5 of 60 fits, 0.5/s, 2 min left",
        "probes: 20 of 60 fits, 0.5/s, 80 s left",
        "probes: 35 of 60 fits, 0.5/s, 50 s left",
        "probes: 50 of 60 fits, 0.5/s, 20 s left",
        "probes: 60 fits in 2 min",
    ]


def test_short_or_disabled_work_shows_nothing():
    assert run(100, 0.05, io.StringIO()) == []
    assert run(100, 5.0, io.StringIO(), enabled=False) == []
    assert run(100, 5.0, Terminal(), enabled=False) == []


def test_a_terminal_has_a_bar_with_rate_and_time_left():
    stream = Terminal()
    with progress(3, "probes", "fits", stream=stream) as bar:
        bar.update(2)
        bar.update()
    assert "probes: 100%" in stream.getvalue() and "3/3" in stream.getvalue() and "fits" in stream.getvalue()


def test_work_that_fails_writes_no_last_line():
    stream = io.StringIO()

    class Failing(Clock):
        def __call__(self) -> float:
            self.now += 50
            if self.now > 160:
                raise RuntimeError
            return self.now

    with pytest.raises(RuntimeError), progress(3, "probes", "fits", stream=stream, clock=Failing()) as bar:
        bar.update()
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("seconds", "shown"), [(11, "11 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h")])
def test_durations_are_short(seconds, shown):
    assert run(1, seconds, io.StringIO()) == [f"probes: 1 fits in {shown}"]


def test_events_go_to_sinks_and_lines_to_the_terminal_unless_they_replace_them():
    clock, seen, stream = Clock(), [], io.StringIO()
    with without_events():
        send_events(seen.append)
        with progress(100, "sd35", "forwards", stream=stream, clock=clock) as bar:
            for _ in range(4):
                clock.now += 6
                bar.update(20)
        assert [(e["event"], e["work"], e["done"], e["total"], e["unit"]) for e in seen] == [
            ("progress", "sd35", 20, 100, "forwards"),
            ("progress", "sd35", 60, 100, "forwards"),
            ("progress", "sd35", 80, 100, "forwards"),
        ]
        assert seen[-1]["per_second"] == pytest.approx(80 / 24, rel=1e-5) and "80 forwards in 24 s" in stream.getvalue()
        send_events(seen.append, instead=True)
        quiet = io.StringIO()
        with progress(1, "x", "y", stream=quiet, clock=clock) as bar:
            clock.now += 60
            bar.update()
        assert quiet.getvalue() == ""
    count = len(seen)
    with progress(1, "x", "y", stream=io.StringIO(), clock=clock) as bar:
        bar.update()
    assert len(seen) == count
