"""Extraction on Ray: the bytes of one process, on a disk and on an S3 server, whoever of the actors is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import probing
from probing.cluster import cluster
from probing.errors import UserError
from probing.features import plan
from probing.features.store import check
from probing.features.store.leases import Leases
from probing.paths import path_of
from tests.fakes.disk_store import write_store
from tests.fakes.fake_store import make_pairs
from tests.features.user_pairs import make_data

RAY = "2.60.0"
READ = {"sigmas": (0.6,), "t5_length": 12, "batch_size": 2, "device": "cpu", "keep_inputs": 0}

SCRIPT = """
import json, sys
import probing
from probing.errors import UserError
model, data, output, read = json.loads(sys.argv[1])
pairs = probing.load_pairs(data)
try:
    _, computed, _ = probing.plan_extraction(model, pairs, output=output, engine="ray", workers=2, **read).run()
    print("computed", computed)
except UserError as error:
    print("refused", error)
"""

KILLED = """
import json, os, random, shutil, signal, sys, threading
import psutil
import probing
from probing.cluster import cluster
model, data, begun, folder, kills, seed, read = json.loads(sys.argv[1])
chance = random.Random(seed)
killed = 0

def actors():
    # Ray names the process of an actor after its class.
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::") and "_Actor" in " ".join(process.cmdline()):
            yield process.pid

def kill(ended, most):
    global killed
    while most and not ended.wait(chance.uniform(0, 3)):
        try:
            pids = sorted(actors())
            if pids:
                os.kill(chance.choice(pids), signal.SIGKILL)
                killed, most = killed + 1, most - 1
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue

pairs, number = probing.load_pairs(data), 0
with cluster():
    while killed < kills:
        output = shutil.copytree(begun, f"{folder}/{number}.zarr")
        number, ended = number + 1, threading.Event()
        killer = threading.Thread(target=kill, args=(ended, 5), daemon=True)
        killer.start()
        try:
            probing.plan_extraction(model, pairs, output=output, engine="ray", workers=2, **read).run()
        finally:
            ended.set()
            killer.join()
print(number, killed)
"""


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """Ray, installed beside: it is large, and no other test needs it."""
    folder = tmp_path_factory.mktemp("ray")
    install = [sys.executable, "-m", "pip", "install", "-q", "--target", folder, f"ray=={RAY}", "--no-deps"]
    subprocess.run(install, check=True, capture_output=True)
    subprocess.run([*install[:-2], "msgpack"], check=True, capture_output=True)
    return folder


@pytest.fixture
def began(tiny_folder, tmp_path, monkeypatch):
    """Data, and the function that makes the beginning of a store: the first of six runs of two items."""
    monkeypatch.setattr(plan, "_LONGEST_RUN", 2)
    file = make_data(tmp_path / "data", count=6)
    data = probing.load_pairs(file)

    def begin(output, *, whole=False):
        probing.extract(tiny_folder, data.select(split="test", limit=2), output=output, **READ)
        if whole:
            probing.extract(tiny_folder, data, output=output, **READ)
        return output

    return file, begin


def extract_on_ray(beside, tiny_folder, file, output):
    return run_script(beside, SCRIPT, str(tiny_folder), str(file), str(output), READ)


def run_script(beside, script, *given, timeout=1200):
    root = probing.__path__[0].rpartition("/")[0]
    found = {**os.environ, "PYTHONPATH": f"{root}:{beside}", "OMP_NUM_THREADS": "1"}
    arguments = json.dumps(given)
    done = subprocess.run(
        [sys.executable, "-c", script, arguments], env=found, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def contents(path):
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["disk", "s3"])
def test_actors_write_the_bytes_of_one_process(beside, tiny_folder, began, tmp_path, request, place):
    file, begin = began
    expected = contents(begin(tmp_path / "one.zarr", whole=True))
    output = path_of(f"{request.getfixturevalue('s3_bucket')}/s.zarr") if place == "s3" else tmp_path / "s.zarr"
    begin(output)
    assert "computed 10" in extract_on_ray(beside, tiny_folder, file, output)
    assert contents(output) == expected and check(output) == []
    assert not Leases(output).living()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_actors(beside, tiny_folder, began, tmp_path, seed):
    """Actors are killed while they start, compute and write; others take over, and no store needs a hand."""
    file, begin = began
    expected = contents(begin(tmp_path / "one.zarr", whole=True))
    given = (str(tiny_folder), str(file), str(begin(tmp_path / "begun.zarr")), str(tmp_path), 50, seed, READ)
    stores, killed = map(int, run_script(beside, KILLED, *given, timeout=1800).split()[-2:])
    assert killed >= 50
    for number in range(stores):
        output = tmp_path / f"{number}.zarr"
        assert contents(output) == expected and check(output) == []
        assert not Leases(output).living()


FITS = """
import json, sys
import numpy as np
from probing.analysis.engine import Run, measure_cells
from probing.features import FeatureStore
path, = json.loads(sys.argv[1])
store = FeatureStore.open(path)
here = measure_cells(store, store.read_pairs(), shuffles=2, run=Run(progress=False))
there = measure_cells(store, store.read_pairs(), shuffles=2, run=Run(progress=False, engine="ray"))
assert here.table[["cell", "control", "alpha"]].equals(there.table[["cell", "control", "alpha"]])
np.testing.assert_allclose(there.table["value"], here.table["value"], atol=5e-3)
print("equal")
"""


@pytest.mark.slow
def test_fits_on_the_cluster_are_those_of_this_process(beside, tmp_path):
    path = write_store(tmp_path / "s.zarr", make_pairs())
    assert run_script(beside, FITS, str(path)) == "equal\n"


@pytest.mark.slow
def test_a_mistake_that_an_actor_finds_is_a_sentence(beside, tiny_folder, began, tmp_path):
    file, begin = began
    output = begin(tmp_path / "s.zarr")
    (tmp_path / "data" / "img" / "3a.png").write_bytes(b"no picture")
    assert "refused" in (said := extract_on_ray(beside, tiny_folder, file, output)) and "3a.png" in said


def test_without_ray_a_sentence_says_how_to_get_it(monkeypatch, tiny_folder, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"needs Ray, which is not installed; pip install 'dit-probing\[ray\]'"):
        cluster().__enter__()
    with pytest.raises(UserError, match="There is no engine 'spark'; engines are local, ray"):
        probing.extract(tiny_folder, output=tmp_path / "s.zarr", engine="spark")
