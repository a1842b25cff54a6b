"""Measure the cost of the feature store, relative to the disk: ``python benchmarks/store.py``.

Writes features of synthetic items (24 blocks of 1536 channels, float32) by several methods, in turns, and reads one
block of all items back:

- ``probing``: the feature store, with checksums, synced after each run;
- ``raw``: the same bytes by ``tofile``, synced: the lower bound of writing;
- ``naive``: one Zarr array with default chunks and compression, as written by hand;
- ``memmap``: one block read from the raw file.

Prints seconds and GB/s, and ratios as the median over turns with their range. ``--folder`` selects
the disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import zarr

from probing.features.store import ArraySpec, FeatureStore
from probing.features.store.layout import COLUMNS

BLOCKS, WIDTH, RUN = 24, 1536, 1024
ARRAY = ArraySpec("features/image/mean", tuple(range(BLOCKS)), (WIDTH,), "float32")


def write_store(path: Path, runs: list[np.ndarray]) -> None:
    ids = [f"item{n}" for n in range(len(runs) * RUN)]
    items = pd.DataFrame({"item_id": ids, "prompt_id": ids, "prompt": "words"})
    store = FeatureStore.create(
        path, arrays=[ARRAY], items=items, sigmas=[0.005], num_blocks=BLOCKS, run_length=RUN, settings={}, provenance={}
    )
    columns = {(c.name, 0): np.zeros((RUN, *c.shape), c.dtype) for c in COLUMNS}
    for number, values in enumerate(runs):
        store.write_run(number, {(ARRAY.name, 0): values, **columns})


def write_raw(path: Path, runs: list[np.ndarray]) -> None:
    with path.open("wb") as file:
        for values in runs:
            values.tofile(file)
            file.flush()
            os.fsync(file.fileno())


def write_naive(path: Path, runs: list[np.ndarray]) -> None:
    array = zarr.create_array(path, shape=(len(runs) * RUN, BLOCKS, WIDTH), dtype="float32")
    for number, values in enumerate(runs):
        array[number * RUN : (number + 1) * RUN] = values
    os.sync()


def read_store(path: Path) -> np.ndarray:
    return FeatureStore.open(path).read("image", "mean", 0.005, BLOCKS // 2)


def read_naive(path: Path) -> np.ndarray:
    array = zarr.open_array(path, mode="r")
    return np.asarray(array[:, BLOCKS // 2])


def read_raw(path: Path) -> np.ndarray:
    return np.array(np.memmap(path, np.float32, "r").reshape(-1, BLOCKS, WIDTH)[:, BLOCKS // 2])


WRITE: dict[str, Callable] = {"probing": write_store, "raw": write_raw, "naive": write_naive}
READ: dict[str, Callable] = {"probing": read_store, "raw": read_raw, "naive": read_naive}


def timed(work: Callable, *arguments: object) -> tuple[float, object]:
    began = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - began, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4, help="runs of 1024 items, 151 MB each")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="folder to write to; by default the system's temporary folder")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    runs = [rng.standard_normal((RUN, BLOCKS, WIDTH), dtype=np.float32) for _ in range(arguments.runs)]
    size = sum(values.nbytes for values in runs) / 1e9
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(arguments.turns):
        folder = Path(tempfile.mkdtemp(dir=arguments.folder))
        try:
            blocks = {}
            for name, write in WRITE.items():
                seconds.setdefault(("write", name), []).append(timed(write, folder / name, runs)[0])
            for name, read in READ.items():
                spent, blocks[name] = timed(read, folder / name)
                seconds.setdefault(("read", name), []).append(spent)
            for block in blocks.values():
                np.testing.assert_array_equal(block, blocks["raw"])
        finally:
            shutil.rmtree(folder)
    for (what, name), spent in seconds.items():
        amount = size if what == "write" else size / BLOCKS
        print(f"{what:>5} {name:<8} {np.median(spent):7.3f} s  {amount / np.median(spent):6.2f} GB/s")
    for what, baseline in (("write", "raw"), ("read", "naive")):
        ratios = np.array(seconds[what, baseline]) / np.array(seconds[what, "probing"])
        print(f"{what}: {np.median(ratios):.2f} [{ratios.min():.2f}, {ratios.max():.2f}] times the speed of {baseline}")


if __name__ == "__main__":
    main()
