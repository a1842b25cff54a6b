"""Several workers on one store: the same bytes, whoever is killed; errors and signals end all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import probing
from probing.errors import UserError
from probing.features import plan
from probing.features.store import check
from probing.features.store.leases import Leases
from probing.store import main as store_main
from tests.features.user_pairs import make_data

READ = {"sigmas": (0.6,), "t5_length": 12, "batch_size": 2, "device": "cpu", "keep_inputs": 0}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    """As many threads as the process beside which the workers are compared."""
    monkeypatch.setattr("probing.api.workers.threads_of", lambda workers: 1)


@pytest.fixture
def began(tiny_folder, tmp_path, monkeypatch):
    """A store of runs of two items, of which half are there, and its data."""
    monkeypatch.setattr(plan, "_LONGEST_RUN", 2)
    data = probing.load_pairs(make_data(tmp_path / "data", count=6))
    path = tmp_path / "s.zarr"
    probing.extract(tiny_folder, data.select(split="test"), output=path, **READ)
    return path, data


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.slow  # Two processes import every library; test_kills.py has four of them at one store in each run.
def test_two_workers_compute_what_one_would(tiny_folder, tmp_path, began, capsys):
    path, data = began
    alone = tmp_path / "alone.zarr"
    for output, workers in ((alone, 1), (path, 2)):
        if output == alone:
            probing.extract(tiny_folder, data.select(split="test"), output=alone, **READ)
        extraction = probing.plan_extraction(tiny_folder, data, output=output, workers=workers, **READ)
        assert ("2 processes, a copy of the model in each" in extraction.describe()) == (workers == 2)
        _, computed, note = extraction.run()
        assert (computed, note) == (6, "")
    assert contents(path) == contents(alone) and check(path) == []
    assert not Leases(path).folder.exists()


@pytest.mark.slow
def test_a_bad_picture_ends_all_workers_with_its_sentence(tiny_folder, tmp_path, began, monkeypatch):
    path, data = began
    monkeypatch.setattr("probing.api.extraction._require_pictures", lambda *_: None)
    for name in ("1a", "3b"):
        (tmp_path / "data" / "img" / f"{name}.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"\.png of record .* cannot be read"):
        probing.extract(tiny_folder, data, output=path, workers=2, **READ)
    assert not Leases(path).living() and check(path) == []


@pytest.mark.slow
def test_the_others_finish_what_a_killed_worker_began(tiny_folder, began, tmp_path):
    path, data = began
    ended = []

    def kill():
        while not ended:
            if others := Leases(path).living():
                os.kill(others[0].pid, signal.SIGKILL)
                ended.append(others[0].pid)
            time.sleep(0.002)

    thread = threading.Thread(target=kill)
    thread.start()
    extraction = probing.plan_extraction(tiny_folder, data, output=path, workers=2, **READ)
    store, _, note = extraction.run()
    ended.append(None)
    thread.join()
    assert "was killed (SIGKILL)" in note and store.complete and check(path) == []
    alone = tmp_path / "alone.zarr"
    probing.extract(tiny_folder, data.select(split="test"), output=alone, **READ)
    probing.extract(tiny_folder, data, output=alone, **READ)
    assert contents(path) == contents(alone)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_and_its_workers_and_the_same_command_goes_on(tmp_path, number, capsys):
    path = tmp_path / "s.zarr"
    options = ["--model", "testbed-xs", "--limit", "3000", "--workers", "2", "--output", str(path), "--sigmas", "0.4"]
    command = [sys.executable, "-m", "probing.extract", *options, "--reductions", "grid4"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # The tests may run in the background, where ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while not (states := [s for s in Leases(path).living() if s.run is not None and s.done]):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    assert store_main(["status", str(path)]) == 0
    said = capsys.readouterr().out
    assert "items complete" in said and f"process {states[0].pid} on" in said and "left" in said
    process.send_signal(number)
    began = time.monotonic()
    _, error = process.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert process.returncode == 128 + number
    assert error.splitlines()[-1].startswith("Stopped; go on with: python -m probing.extract --model testbed-xs")
    assert not Leases(path).living()
    assert check(path, deep=False) == [] or not probing.FeatureStore.open(path).complete
    assert store_main(["status", str(path)]) == 0
    assert "nobody is at work; the same probing.extract continues" in capsys.readouterr().out


def test_numbers_of_workers_are_checked(tiny_folder, tmp_path):
    with pytest.raises(UserError, match="--workers must be at least 1, got 0"):
        probing.extract(tiny_folder, output=tmp_path / "s.zarr", workers=0)
