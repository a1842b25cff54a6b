"""Measure the memory of a logistic fit: ``python benchmarks/fitting_memory.py``.

Fits the default probe, with its five folds and eleven strengths, to synthetic pairs of two items each, every method and
size in a process of its own: with features in memory, and with features on disk, read a block at a time. Writes
seconds of the fit (writing the items to the disk is left out), the largest memory of the process, that above what it
held before the items, and how far the objective of the two lies apart, to ``fitting_memory.csv`` beside this file. What
this machine's memory cannot hold is left out. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

from probing.analysis.engine.sites import FIT_MEMORY

FIT = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from probing.probes import DiskRows, LogisticProbe
from probing.probes._base import log_loss
method, pairs, width, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
held = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
rows, block = np.arange(2 * pairs).reshape(pairs, 2), 4096
direction = np.random.default_rng(0).normal(size=width)

def features(number):
    size = min(block, 2 * pairs - number * block)
    return np.random.default_rng([1, number]).normal(size=(size, width)).astype(np.float32)

def blocks():
    return map(features, range(-(-2 * pairs // block)))

rewards = np.concatenate([part @ direction for part in blocks()]) / np.sqrt(width)
chance = 1 / (1 + np.exp(-2 * (rewards[::2] - rewards[1::2])))
y = (np.random.default_rng(2).random(pairs) < chance).astype(float)
del rewards, chance
before = held()
if method == "memory":
    items = np.empty((2 * pairs, width), np.float32)
    for number, part in enumerate(blocks()):
        items[number * block : number * block + len(part)] = part
else:
    items = DiskRows.write(blocks(), folder)
read = time.perf_counter()
probe = LogisticProbe().fit_pairs(items, rows, y, np.arange(pairs) // 3)
seconds, most = time.perf_counter() - read, peak()
loss = 0.0
for part, start in zip(blocks(), range(0, 2 * pairs, block)):
    exact = part.astype(np.float64)
    margins = (exact[::2] - exact[1::2]) @ probe.coef_
    loss += log_loss(margins[:, None], y[start // 2 : start // 2 + len(margins), None]).sum()
# At the scale of the first fit, the penalty is the same function of both.
objective = loss / pairs + probe.alpha_ / 2 * ((probe.coef_ * np.sqrt(2)) ** 2).sum()
found = {"seconds": seconds, "process_gib": most / 2**30, "peak_gib": (most - before) / 2**30}
print(json.dumps({**found, "alpha": probe.alpha_, "objective": objective}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[20_000, 200_000, 2_000_000])
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--methods", nargs="+", default=["memory", "disk"])
    parser.add_argument("--folder", type=Path, default=Path("cache"), help="where features on disk lie")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    arguments = parser.parse_args()
    rows = []
    for pairs in arguments.pairs:
        for method in arguments.methods:
            features = 2 * pairs * arguments.width * 4 / 2**30
            if method == "memory" and FIT_MEMORY * features * 2**30 > os.sysconf("SC_PHYS_PAGES") * os.sysconf(
                "SC_PAGE_SIZE"
            ):
                print(
                    f"{pairs:,} pairs in memory: left out, they would take {FIT_MEMORY * features:.0f} GiB", flush=True
                )
                continue
            command = [sys.executable, "-c", FIT, method, str(pairs), str(arguments.width), str(arguments.folder)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append(
                {
                    "pairs": pairs,
                    "width": arguments.width,
                    "method": method,
                    "seconds": round(found["seconds"], 1),
                    "process_gib": round(found["process_gib"], 2),
                    "peak_gib": round(found["peak_gib"], 2),
                    "times_features": round(found["peak_gib"] / features, 2),
                    "alpha": round(found["alpha"], 6),
                    "objective": found["objective"],
                }
            )
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    least = table.groupby("pairs")["objective"].transform("min")
    compared = table.groupby("pairs")["objective"].transform("size") > 1
    table["objective_above_least"] = (table["objective"] / least - 1).map("{:.1e}".format).where(compared)
    table.drop(columns="objective").to_csv(arguments.output, index=False)
    print(f"\n{arguments.output}")


if __name__ == "__main__":
    main()
