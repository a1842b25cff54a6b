"""Who works on a store: beside it, a small file of each process and of each run that is being computed.

A run has the same bytes whoever computes it, so that the claim of a run saves work and protects nothing: two processes
that claim one do no harm. What changes the documents of a store (creation at a URL, additions, repair) is done alone:
nobody else is at work then, and nobody begins.

A process renews its file every few seconds. One that has ended on this machine is known at once; one whose file was not
renewed for a minute is taken for dead, and what it claimed is free. If it was only suspended, it finds out before it
writes, and stops. Ages are differences of times that the file server gives, so that the clocks of machines do not
matter. It needs a place where a file can be created only if it is not there: a local disk, NFS, S3.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from probing.errors import UserError
from probing.features.store.lock import remove_unfinished
from probing.files import create_new, modified, read_bytes, write_bytes
from probing.paths import AnyPath, is_remote

BEAT, STALE = 5.0, 60.0
"""Seconds between renewals, and after which a process whose file was not renewed is taken for dead."""
PATIENCE = 60.0
"""Seconds to wait for a process that changes the store itself."""
_ALONE, _RUN, _PROCESS, _DEAD, _NOW = "alone", "run-", "process-", "dead-", "now-"


class Busy(UserError):
    """Another process is at work, and what was asked needs the store alone."""


@dataclass(frozen=True)
class State:
    """What a process says of itself.

    Attributes:
        host: Name of its machine.
        pid: Number of the process there.
        machine: Identity of the machine since its start, and of the space of process numbers.
        started: When it began, in seconds since 1970.
        doing: What it does, for people.
        done: Forwards that it has run.
        total: Forwards that the store lacked when it began.
        run: The run that it computes; None between two.
    """

    host: str
    pid: int
    machine: str
    started: float
    doing: str
    done: int = 0
    total: int = 0
    run: int | None = None

    @property
    def name(self) -> str:
        return f"process {self.pid} on {self.host}"

    def has_ended(self) -> bool:
        """Return whether it is known to have ended, which only its own machine can tell."""
        if self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False


@cache
def _machine() -> str:
    """Return what no other machine has, nor this one after a restart, nor another container on it."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def own_state(doing: str, total: int = 0) -> State:
    """Return the state of this process."""
    return State(socket.gethostname(), os.getpid(), _machine(), time.time(), doing, total=total)


class Leases:
    """The processes that work on one store.

    Args:
        store: Path of the store; the files lie beside it, in ``STORE.workers``, and only while somebody works.
    """

    def __init__(self, store: AnyPath) -> None:
        self.store = store
        self.folder = store.with_name(f"{store.name}.workers")

    def living(self) -> list[State]:
        """Return the processes that compute runs, in the order in which they began."""
        # By this machine's clock, since nothing is removed by it.
        return sorted((state for state, _ in self._processes(time.time())), key=lambda state: state.started)

    @contextmanager
    def alone(self, doing: str = "changing the store") -> Iterator[None]:
        """Keep all other processes out, to change the store itself.

        Raises:
            Busy: Another process is at work.
        """
        mine = _Renewed(self.folder / _ALONE, own_state(doing))
        deadline = time.monotonic() + PATIENCE
        while not mine.create():
            holder = self._holder(_ALONE, self._now())
            if holder is None:
                (self.folder / _ALONE).unlink(missing_ok=True)
            elif time.monotonic() > deadline:
                raise self._busy(holder)
            else:
                time.sleep(0.2)
        try:
            if others := self._processes(mine.now(), remove=True):
                raise self._busy(others[0][0])
            yield
        finally:
            mine.remove()
            self.tidy()

    @contextmanager
    def joined(self, doing: str, total: int = 0) -> Iterator[Worker]:
        """Work on the store beside others.

        Args:
            doing: What is done, for people who look.
            total: Forwards that the store lacks.

        Raises:
            Busy: Another process changes the store itself, for more than a minute.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            name = f"{_PROCESS}{os.getpid()}-{secrets.token_hex(4)}"
            mine = _Renewed(self.folder / name, own_state(doing, total))
            mine.create()
            # Whoever is alone looks for processes after it has said so; one of the two sees the other.
            holder = self._holder(_ALONE, mine.now())
            if holder is None:
                break
            mine.remove()
            if time.monotonic() > deadline:
                raise self._busy(holder)
            time.sleep(0.2)
        worker = Worker(self, mine)
        try:
            yield worker
        finally:
            worker.release_all()
            mine.remove()
            self.tidy()

    def _busy(self, holder: State) -> Busy:
        return Busy(
            f"{self.store} is in use by {holder.name} ({holder.doing}); wait until it ends, or give another --output."
        )

    def _names(self) -> list[str]:
        try:
            return [path.name for path in self.folder.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _now(self) -> float:
        """Return the time of the file server."""
        while True:
            file = self.folder / f"{_NOW}{secrets.token_hex(8)}"
            create_new(file, b"")
            try:
                return modified(file)
            except FileNotFoundError:
                # Somebody who is tidying up has removed it.
                continue
            finally:
                file.unlink(missing_ok=True)

    def _processes(self, now: float, *, remove: bool = False) -> list[tuple[State, str]]:
        """Return the living processes, with the names of their files; ``remove`` the files of dead ones."""
        found = []
        for name in self._names():
            if name.startswith(_PROCESS) and not name.endswith(".partial"):
                state = self._holder(name, now)
                if state is not None:
                    found.append((state, name))
                elif remove:
                    # Said first: a process that is not dead may be renewing its file at this moment.
                    create_new(self.folder / f"{_DEAD}{name}", b"")
                    (self.folder / name).unlink(missing_ok=True)
        return found

    def _holder(self, name: str, now: float) -> State | None:
        """Return the process of a file; None if there is no file, or its process is dead."""
        path = self.folder / name
        try:
            age = now - modified(path)
            content = read_bytes(path)
        except FileNotFoundError:
            return None
        try:
            state = State(**json.loads(content))
        except (ValueError, TypeError):
            # Between its creation and its first content.
            state = State("another machine", 0, "", time.time(), "beginning")
        return None if age > STALE or state.has_ended() else state

    def tidy(self) -> None:
        """Remove what dead processes have left, unless somebody is at work; then the folder, if it is empty."""
        if not is_remote(self.store):
            remove_unfinished(self.store)
        # Before anybody is looked for: the file of a process that joins after that look is not among them.
        left = self._names()
        if left:
            now = self._now()
            if self._processes(now, remove=True) or self._holder(_ALONE, now) is not None:
                return
        for name in (*left, *(f"{_DEAD}{name}" for name in left)):
            if name == _ALONE or name.lstrip(".").startswith((_RUN, _PROCESS, _DEAD, _NOW, f"{_ALONE}.")):
                (self.folder / name).unlink(missing_ok=True)
        # At a URL a folder ends with its files, and removing it takes them too.
        if not is_remote(self.folder):
            with suppress(OSError):
                self.folder.rmdir()


class Worker:
    """This process among those that work on a store; by :meth:`Leases.joined`."""

    def __init__(self, leases: Leases, mine: _Renewed) -> None:
        self._leases, self._mine = leases, mine
        self._claims: set[int] = set()

    def claim(self, run: int) -> bool:
        """Claim a run, unless a living process has."""
        path = self._leases.folder / f"{_RUN}{run}"
        name = self._mine.path.name.encode()
        for _ in range(2):
            if create_new(path, name):
                self._claims.add(run)
                self._mine.state = replace(self._mine.state, run=run)
                return True
            try:
                owner = read_bytes(path).decode()
                # Its content comes a moment after the file.
                young = not owner and self._mine.now() - modified(path) < STALE
            except FileNotFoundError:
                continue
            if young or (owner and self._leases._holder(owner, self._mine.now()) is not None):
                return False
            path.unlink(missing_ok=True)
        return False

    def release(self, run: int) -> None:
        """Give a claim back."""
        self._claims.discard(run)
        (self._leases.folder / f"{_RUN}{run}").unlink(missing_ok=True)

    def release_all(self) -> None:
        for run in sorted(self._claims):
            with suppress(OSError):
                self.release(run)

    def advance(self, forwards: int) -> None:
        """Say that forwards were run."""
        self._mine.state = replace(self._mine.state, done=self._mine.state.done + forwards)

    def require_alive(self) -> None:
        """Check, before something is written, that the others have not taken this process for dead.

        Raises:
            UserError: They have.
        """
        if self._mine.is_taken_for_dead():
            raise UserError(
                f"This process was suspended for more than {STALE:g} s, and others may have taken over its work on "
                f"{self._leases.store}; the same command goes on."
            )


class _Renewed:
    """A file that says what this process does, renewed by a thread until it is removed."""

    def __init__(self, path: AnyPath, state: State) -> None:
        self.path, self.state = path, state
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        self._beat = (0.0, 0.0)

    def create(self) -> bool:
        """Create the file, unless it is there; then renew it."""
        if not create_new(self.path, self._content()):
            return False
        self._beat = (modified(self.path), time.monotonic())
        self._thread.start()
        return True

    def is_taken_for_dead(self) -> bool:
        """Return whether others have taken this process for dead."""
        return self.path.with_name(f"{_DEAD}{self.path.name}").exists() or not self.path.exists()

    def now(self) -> float:
        """Return the time of the file server."""
        then, since = self._beat
        return then + time.monotonic() - since

    def remove(self) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._ended.wait(BEAT):
            # A full disk or a network that is away for a moment stops nothing; after a minute others go on.
            with suppress(OSError, UserError):
                if self.is_taken_for_dead():
                    return
                write_bytes(self.path, self._content())
                self._beat = (modified(self.path), time.monotonic())

    def _content(self) -> bytes:
        return json.dumps(asdict(self.state)).encode()
