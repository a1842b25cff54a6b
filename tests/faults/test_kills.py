"""After kill -9 at random moments, the same command ends in the same bytes as an undisturbed run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from probing.features.settings import ENCODED
from probing.features.store import ArraySpec, FeatureStore, check, repair
from tests.features.small_store import make_small_store, random_values
from tests.features.user_pairs import make_data

_CONTEXT = multiprocessing.get_context("forkserver")
# Children fork from a process that has imported everything: a kill interrupts the work, not the imports.
_LIBRARIES = ["probing.backbones.families.sd3", "probing.features.extraction", "diffusers.pipelines.stable_diffusion_3"]
_CONTEXT.set_forkserver_preload(
    ["probing.extract", "probing.measure", "probing.store", "probing.analysis.noise", *_LIBRARIES, __name__]
)


def _command(name: str, argv: list[str]) -> None:
    import importlib

    import torch

    torch.set_num_threads(1)
    import probing.features.plan

    probing.features.plan._LONGEST_RUN = 3
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(_said(Path(argv[argv.index("--output") + 1])), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    raise SystemExit(importlib.import_module(name).main(argv))


def _said(output: Path) -> Path:
    """Name the file of what all commands with outputs in a folder beside this one wrote to stderr."""
    return output.parent.with_name(f"{output.parent.name}.said")


def _nothing() -> None:
    pass


@pytest.fixture(scope="module", autouse=True)
def _preloaded() -> None:
    """The first child waits for the imports of the process that it is forked from."""
    assert run(_nothing, (), None) == 0


def _create(path: str) -> None:
    """Create a store, and nothing else, as often as it is killed."""
    _make_store(Path(path))


def run(target: Callable, arguments: tuple, kill_after: float | None) -> int | None:
    """Run in a child and kill it after some seconds; None if it was killed, else its exit status."""
    process = _CONTEXT.Process(target=target, args=arguments)
    process.start()
    process.join(kill_after)
    if process.exitcode is None:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        return None
    return process.exitcode


def kill_until_done(target: Callable, arguments: tuple, undisturbed: float, kills: int, seed: int) -> int:
    """Start and kill a command at random moments, then let it end; return the number of real kills."""
    rng = np.random.default_rng(seed)
    killed = 0
    for _ in range(kills):
        killed += run(target, arguments, rng.uniform(0, undisturbed)) is None
    assert run(target, arguments, None) == 0
    return killed


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file but the kept latents and prompts, which decide no byte of a store."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".partial") and ENCODED not in path.relative_to(folder).parts
    }


def timed(target: Callable, arguments: tuple) -> float:
    began = time.monotonic()
    assert run(target, arguments, None) == 0
    return time.monotonic() - began


def _make_store(path: Path, prompts: int = 30) -> None:
    """A store of two items a prompt whose third channel of block 1 depends on the choice."""
    rng = np.random.default_rng(0)
    ids = [f"p{n}/{side}" for n in range(prompts) for side in "ab"]
    arrays = (
        ArraySpec("features/image/mean", (0, 1, 2), (4,), "float32"),
        ArraySpec("latents/mean", None, (2,), "float32"),
    )
    items = pd.DataFrame({"item_id": ids, "prompt_id": [i.split("/")[0] for i in ids], "prompt": "words"})
    settings = {"model": "m", "data": "d", "random_init": False, "prompts": "own", "seed": 0, "resolution": 8}
    try:
        store = FeatureStore.create(
            path,
            arrays=arrays,
            items=items,
            sigmas=(0.1, 0.5),
            num_blocks=3,
            run_length=7,
            settings=settings,
            provenance={"streams": ["image"], "reductions": ["mean"], "revision": "r"},
        )
    except FileExistsError:
        repair(path, [problem for problem in check(path, deep=False) if not problem.file.endswith(".parquet")])
        store = FeatureStore.open(path)
    choices = rng.integers(0, 2, prompts).astype(float)
    for run_number in store.runs:
        rows = store.rows_of_run(run_number)
        values = random_values(store, run_number, np.random.default_rng([1, run_number]), 5)
        for row in range(rows.stop - rows.start):
            prompt, side = divmod(rows.start + row, 2)
            values["features/image/mean", 0][row, 1, 2] += 9 * (choices[prompt] == 1 - side)
        if run_number not in store.records:
            store.write_run(run_number, values)
    store.write_pairs(
        pd.DataFrame(
            {
                "pair_id": [f"q{n}" for n in range(prompts)],
                "prompt_id": [f"p{n}" for n in range(prompts)],
                "first": ids[::2],
                "second": ids[1::2],
                "choice": choices,
                "facet": "all",
                "split": ["train" if n % 3 else "test" for n in range(prompts)],
            }
        )
    )


def _extraction(model: Path, tmp_path: Path) -> Callable[[Path], tuple]:
    """Return the command of an extraction of four runs, by its output."""
    data = make_data(tmp_path / "data", count=6)
    options = ["--model", str(model), "--data", str(data), "--batch-size", "3", "--t5-length", "12"]
    options += ["--sigmas", "0.005,0.6", "--streams", "image,text"]
    return lambda output: ("probing.extract", [*options, "--output", str(output)])


KILLS = [pytest.param(2, id="few"), pytest.param(50, id="many", marks=pytest.mark.slow)]


@pytest.mark.parametrize(
    ("kills", "seed"),
    [
        pytest.param(2, 0, id="few"),
        *(pytest.param(50, seed, id=f"many{seed}", marks=pytest.mark.slow) for seed in range(1, 5)),
    ],
)
def test_extraction(tiny_folder, tmp_path, kills, seed):
    """Kills fall into creation, forwards and writing; the store ends in the same bytes, its documents too."""
    command = _extraction(tiny_folder, tmp_path)
    undisturbed = timed(_command, command(tmp_path / "whole" / "s.zarr"))
    expected = contents(tmp_path / "whole")
    killed, attempt = 0, 0
    while killed < kills:
        folder = tmp_path / f"cut{attempt}"
        moments = 1000 * seed + attempt
        killed += kill_until_done(_command, command(folder / "s.zarr"), undisturbed, min(kills, 5), moments)
        assert contents(folder) == expected
        assert check(folder / "s.zarr") == []
        # A kill after the last record leaves nothing to compute, and so no command that removes the file.
        assert len(list(folder.rglob("*.partial"))) <= 1
        attempt += 1


@pytest.mark.parametrize(
    ("kills", "seed"),
    [
        pytest.param(2, 5, id="few"),
        pytest.param(100, 6, id="many", marks=pytest.mark.slow),
        pytest.param(100, 7, id="many more", marks=pytest.mark.slow),
    ],
)
def test_four_writers(tiny_folder, tmp_path, kills, seed):
    """Four processes compute one store at once and are killed at random; the others take over what they held."""
    command = _extraction(tiny_folder, tmp_path)
    undisturbed = timed(_command, command(tmp_path / "whole" / "s.zarr"))
    expected = contents(tmp_path / "whole")
    rng, killed, attempt = np.random.default_rng(seed), 0, 0
    while killed < kills:
        folder = tmp_path / f"cut{attempt}"
        arguments = command(folder / "s.zarr")
        for _ in range(2):
            with ThreadPoolExecutor(4) as pool:
                ends = list(pool.map(partial(run, _command, arguments), rng.uniform(0, 2 * undisturbed, 4)))
            # Who was not killed has ended well, whatever happened to the others.
            assert set(ends) <= {0, None}, _said(folder / "s.zarr").read_text()[-4000:]
            killed += ends.count(None)
        assert run(_command, arguments, None) == 0
        assert contents(folder) == expected
        assert check(folder / "s.zarr") == []
        attempt += 1


@pytest.mark.parametrize("kills", KILLS)
def test_creation(tmp_path, kills):
    undisturbed = timed(_create, (str(tmp_path / "whole" / "s.zarr"),))
    expected = contents(tmp_path / "whole")
    for attempt in range(max(1, kills // 5)):
        folder = tmp_path / f"cut{attempt}"
        kill_until_done(_create, (str(folder / "s.zarr"),), undisturbed, min(kills, 5), attempt)
        assert contents(folder) == expected


def _create_at_once(path: str, barrier, results) -> None:
    barrier.wait()
    try:
        make_small_store(Path(path))
        results.put("made")
    except FileExistsError:
        results.put("exists" if len(FeatureStore.open(path).item_ids) else "broken")


def test_one_of_several_simultaneous_creations_succeeds(tmp_path):
    for attempt in range(5):
        barrier, results = _CONTEXT.Barrier(4), _CONTEXT.Queue()
        path = tmp_path / f"{attempt}.zarr"
        processes = [_CONTEXT.Process(target=_create_at_once, args=(str(path), barrier, results)) for _ in range(4)]
        for process in processes:
            process.start()
        outcomes = sorted(results.get(timeout=120) for _ in processes)
        for process in processes:
            process.join()
        assert outcomes == ["exists"] * 3 + ["made"]
        assert check(path) == [] and not list(tmp_path.glob("*.partial"))


def _fitted(options: list[str], tmp_path: Path, kills: int) -> None:
    store = tmp_path / "s.zarr"
    _make_store(store)

    def command(output: Path) -> tuple:
        return ("probing.measure", [*options, "--store", str(store), "--output", str(output)])

    undisturbed = timed(_command, command(tmp_path / "whole"))
    expected = contents(tmp_path / "whole")
    killed, attempt = 0, 0
    while killed < kills:
        folder = tmp_path / f"cut{attempt}"
        killed += kill_until_done(_command, command(folder), undisturbed, min(kills, 5), attempt)
        assert contents(folder) == expected
        attempt += 1


@pytest.mark.parametrize("kills", KILLS)
def test_fitting(tmp_path, kills):
    _fitted(["reward-curve", "--shuffles", "2"], tmp_path, kills)


@pytest.mark.parametrize("kills", KILLS)
def test_analysis(tmp_path, kills):
    _fitted(["noise"], tmp_path, kills)
