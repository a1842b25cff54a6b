"""Several processes at one store: who is at work, what each claims, and what happens after a kill or a pause."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, replace

import pytest
from upath import UPath

from probing.errors import UserError
from probing.features.store import leases
from probing.features.store.leases import Busy, Leases, own_state


@pytest.fixture(params=["disk", "memory", pytest.param("s3", marks=pytest.mark.slow)])
def place(request, tmp_path):
    """A path of a store: on disk, at a URL in memory, and on an S3 server."""
    if request.param == "disk":
        return tmp_path / "s.zarr"
    if request.param == "s3":
        return UPath(request.getfixturevalue("s3_bucket"), use_listings_cache=False) / "s.zarr"
    # A name of its own: all of memory is one file system.
    return UPath(f"memory://{tmp_path.name}/s.zarr")


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.05)
    monkeypatch.setattr(leases, "PATIENCE", 0.5)


def files(place):
    folder = Leases(place).folder
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def plant(place, name, state):
    folder = Leases(place).folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(asdict(state)))


def test_a_run_is_claimed_by_one_process_until_it_is_released(place, fast):
    with Leases(place).joined("one") as one, Leases(place).joined("two", total=8) as two:
        assert one.claim(0) and not two.claim(0) and two.claim(1) and not one.claim(1)
        one.release(0)
        assert two.claim(0)
        two.advance(5)
        time.sleep(0.3)
        first, second = Leases(place).living()
        assert (first.doing, second.doing, second.done, second.total) == ("one", "two", 5, 8)
        assert first.pid == os.getpid()
    assert files(place) == []


def refused(context, message):
    with pytest.raises(Busy, match=message), context:
        raise AssertionError("two at once")


def test_changes_to_the_store_and_computing_exclude_each_other(place, fast):
    with Leases(place).joined("sd35-medium"):
        refused(Leases(place).alone(), r"in use by process \d+ on .* \(sd35-medium\)")
    with Leases(place).alone("adding"):
        refused(Leases(place).joined("two"), r"\(adding\); wait until it ends, or give another --output")
        refused(Leases(place).alone("repairing"), r"\(adding\)")
    assert files(place) == []


def test_who_comes_later_waits_for_a_change_that_ends(place, monkeypatch):
    monkeypatch.setattr(leases, "PATIENCE", 20.0)
    order, begun = [], threading.Event()

    def change():
        with Leases(place).alone():
            order.append("begun")
            begun.set()
            time.sleep(0.5)
            order.append("ended")

    thread = threading.Thread(target=change)
    thread.start()
    assert begun.wait(20)
    with Leases(place).joined("two"):
        order.append("joined")
    thread.join()
    assert order == ["begun", "ended", "joined"]


def dead_process():
    """Return the state of a process of this machine that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return replace(own_state("killed"), pid=child.pid)


def test_what_a_killed_process_of_this_machine_held_is_free_at_once(place, fast):
    plant(place, "process-1", dead_process())
    plant(place, "alone", dead_process())
    (Leases(place).folder / "run-3").write_text("process-1")
    with Leases(place).joined("next") as worker:
        assert worker.claim(3)
        assert Leases(place).living()[0].doing == "next"
    assert files(place) == []


def test_what_killed_processes_left_is_removed_after_the_last_one(place, fast):
    plant(place, "process-1", dead_process())
    (Leases(place).folder / "run-3").write_text("process-1")
    (Leases(place).folder / ".process-1.abc.partial").write_text("{")
    with Leases(place).joined("next"):
        Leases(place).tidy()
        assert "run-3" in files(place)
    assert files(place) == []
    plant(place, "alone", dead_process())
    Leases(place).tidy()
    assert files(place) == []


def test_what_a_dead_process_of_another_machine_held_is_free_after_a_while(place, fast, monkeypatch):
    plant(place, "process-1", replace(own_state("far"), machine="another", host="node7", pid=1))
    (Leases(place).folder / "run-3").write_text("process-1")
    with Leases(place).joined("next") as worker:
        assert not worker.claim(3)
    refused(Leases(place).alone(), "process 1 on node7")
    # Object stores give times in whole seconds.
    monkeypatch.setattr(leases, "STALE", 2.5)
    time.sleep(4.0)
    with Leases(place).joined("next") as worker:
        assert worker.claim(3)


def test_a_process_that_was_taken_for_dead_writes_nothing(place, fast):
    with Leases(place).joined("suspended") as worker:
        worker.require_alive()
        # As another process does that has not seen its file renewed.
        assert Leases(place)._processes(1e11, remove=True) == []
        time.sleep(0.3)
        with pytest.raises(UserError, match=r"suspended for more than 60 s.*the same command goes on"):
            worker.require_alive()


def test_many_claims_at_once_are_given_once(tmp_path):
    store, taken = tmp_path / "s.zarr", []

    def work():
        with Leases(store).joined("one") as worker:
            taken.extend(run for run in range(40) if worker.claim(run))
            barrier.wait()

    barrier = threading.Barrier(8)
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(40))
    assert not Leases(store).folder.exists()


def test_a_wrong_clock_of_this_machine_takes_nobody_for_dead(place, fast, monkeypatch):
    with Leases(place).joined("other") as other:
        assert other.claim(0)
        monkeypatch.setattr(leases.time, "time", lambda: 1e10)
        # Who only looks may be wrong, and changes nothing.
        Leases(place).living()
        refused(Leases(place).alone(), r"\(other\)")
        Leases(place).tidy()
        with Leases(place).joined("mine") as mine:
            assert not mine.claim(0)
        other.require_alive()
    assert files(place) == []


def test_damaged_and_foreign_files_stop_nobody(place, fast, monkeypatch):
    folder = Leases(place).folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "process-broken").write_text("{")
    (folder / "notes.txt").write_text("mine")
    monkeypatch.setattr(leases, "STALE", 1.5)
    with pytest.raises(Busy, match="another machine"), Leases(place).alone():
        pass
    time.sleep(3.0)
    with Leases(place).alone():
        pass
    assert files(place) == ["notes.txt"]


def test_who_ends_does_not_remove_who_begins_at_that_moment(tmp_path, monkeypatch):
    """A process joins after the one that ends has looked for others, and before it removes what is left."""
    leases, joined = Leases(tmp_path / "s.zarr"), ExitStack()
    with joined:
        looked = Leases._processes

        def look_and_let_join(self, now, **options):
            found = looked(self, now, **options)
            monkeypatch.setattr(Leases, "_processes", looked)
            workers.append(joined.enter_context(Leases(leases.store).joined("beginning")))
            return found

        workers = []
        leases.folder.mkdir()
        (leases.folder / "run-3").write_text("of a dead process")
        monkeypatch.setattr(Leases, "_processes", look_and_let_join)
        leases.tidy()
        workers[0].require_alive()
    assert not leases.folder.exists()
