"""Extract by several processes of this machine, each with a copy of the model on a device of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import cloudpickle

from probing.commands import TERMINATED, run_command
from probing.errors import UserError
from probing.features.store.leases import Leases
from probing.progress import progress

if TYPE_CHECKING:
    from probing.api.extraction import Extraction

_LOOK_SECONDS = 0.5
_LAST_SECONDS = 60.0
"""Seconds that a worker has to end after a signal: it finishes the run that it is writing."""
_LINES = 15


def devices_of(device: str, workers: int) -> list[str]:
    """Return the device of each worker: the accelerators in turn, or the one device that was named.

    Raises:
        UserError: The device is not on this machine.
    """
    from probing.backbones import device_type

    if device not in ("auto", "cuda") or device_type(device) != "cuda":
        return [device] * workers
    import torch

    return [f"cuda:{number % torch.cuda.device_count()}" for number in range(workers)]


def threads_of(workers: int) -> int:
    """Return the threads of one of several workers that share this machine's cores."""
    return max(1, (os.cpu_count() or 1) // workers)


def run_workers(extraction: Extraction, workers: int) -> tuple[int, list[str]]:
    """Run workers until the store lacks nothing. What a killed one has begun, the others finish.

    Returns:
        The number of items that were computed, and a sentence for each worker that was killed.

    Raises:
        UserError: A worker has found a mistake in the request, a bad picture or a full disk; all are ended.
        RuntimeError: A worker has failed otherwise, or all were killed.
    """
    with tempfile.TemporaryDirectory(prefix="probing-workers-") as folder:
        payload = Path(folder) / "extraction.pickle"
        payload.write_bytes(cloudpickle.dumps(extraction))
        started = [_Started(payload, device, threads_of(workers)) for device in devices_of(extraction.device, workers)]
        try:
            _wait(extraction, started)
        finally:
            _end(started)
        ends = [one.result() for one in started]
    killed = [f"worker {number} was killed ({end['killed']})" for number, end in enumerate(ends) if "killed" in end]
    failed = [end for end in ends if "failure" in end]
    for end in failed:
        raise (UserError if end["is_request"] else RuntimeError)(end["failure"])
    if len(killed) == len(started):
        raise RuntimeError(f"every worker was killed, as when memory is full; {killed[0]}; give fewer --workers")
    return sum(end.get("computed", 0) for end in ends), killed


class _Started:
    """A worker that was started."""

    def __init__(self, payload: Path, device: str, threads: int) -> None:
        handle, name = tempfile.mkstemp(dir=payload.parent, suffix=".txt")
        self._said: BinaryIO = os.fdopen(handle, "w+b")
        self._result = Path(name).with_suffix(".json")
        count = str(threads)
        # A session of its own: ctrl-C reaches this process alone, which ends the workers in order.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "probing.api.workers", str(payload), device, str(self._result), str(os.getpid())],
            env={**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count},
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
            start_new_session=True,
        )

    def result(self) -> Mapping[str, Any]:
        """Return ``computed``, or ``killed``, or ``ended`` after another failed, or ``failure`` with ``is_request``."""
        code = self.process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        self._said.close()
        if self._result.is_file():
            return json.loads(self._result.read_bytes())
        if code < 0:
            return {"killed": signal.Signals(-code).name}
        if code == TERMINATED:
            return {"ended": True}
        said = " / ".join(lines[-_LINES:]) or "it said nothing"
        return {"failure": f"a worker has failed with status {code}: {said}", "is_request": False}


def _wait(extraction: Extraction, started: Sequence[_Started]) -> None:
    """Wait until all workers have ended, or one has failed; show what they have done."""
    leases, done = Leases(extraction.output), dict.fromkeys((one.process.pid for one in started), 0)
    total, shown = extraction.work.forwards(), 0
    with progress(total, extraction.plan.spec.name, "forwards") as bar:
        while any(one.process.poll() is None for one in started):
            if any((one.process.poll() or 0) > 0 for one in started):
                return
            for state in leases.living():
                if state.pid in done:
                    done[state.pid] = max(done[state.pid], state.done)
            now = min(total, sum(done.values()))
            bar.update(max(0, now - shown))
            shown = max(shown, now)
            time.sleep(_LOOK_SECONDS)
        bar.update(total - shown)


def _end(started: Sequence[_Started]) -> None:
    """End the workers that are still at work, at a clean point."""
    for one in started:
        if one.process.poll() is None:
            one.process.terminate()
    deadline = time.monotonic() + _LAST_SECONDS
    for one in started:
        try:
            one.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.process.kill()


def _work(payload: Path, device: str, result: Path, parent: int) -> None:
    """Extract as one worker, and write what came of it."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    extraction: Extraction = cloudpickle.loads(payload.read_bytes()).planned_again(device)
    try:
        _, computed, note = extraction.run()
    except UserError as error:
        result.write_text(json.dumps({"failure": str(error), "is_request": True}))
        raise
    result.write_text(json.dumps({"computed": computed, "note": note}))


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, however that was."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    with suppress(OSError):
        os.kill(os.getpid(), signal.SIGTERM)


class _Arguments:
    prog = "a worker"

    def parse(self, argv: Sequence[str] | None) -> tuple[list[str], bool]:
        return list(argv or ()), True


def _main(arguments: Sequence[str]) -> None:
    payload, device, result, parent = arguments
    _work(Path(payload), device, Path(result), int(parent))


if __name__ == "__main__":
    raise SystemExit(run_command(_main, _Arguments(), sys.argv[1:]))
