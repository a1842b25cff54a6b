"""Measure whether an extraction's memory depends on the number of items: ``python benchmarks/extraction_memory.py``.

Each number of items is extracted in a process of its own, from made-up pictures of the model's own size, with the grids
of a block's tokens (16 times the means). Prints the peak memory of each process (VmHWM), after loading and at the end,
and writes ``extraction_memory.csv`` beside this file. Items are several whole runs of the store, so that reading,
forwards and writing overlap as in a long extraction.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from made_up import made_up

import probing
from probing.backbones import resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="testbed-xs")
    parser.add_argument("--items", type=int, nargs="+", default=[3072, 30720])
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(extract(arguments.model, arguments.child)))
        return
    rows = []
    for items in arguments.items:
        command = [sys.executable, __file__, "--model", arguments.model, "--child", str(items)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append({"model": arguments.model, "items": items, **json.loads(done.stdout.splitlines()[-1])})
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table["ratio"] = (table["peak_gib"] / table["peak_gib"].iloc[0]).round(3)
    table.to_csv(arguments.output, index=False)
    print(f"\n{table.to_string(index=False)}\n\n{arguments.output}")


def extract(model: str, items: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        output, data = Path(folder) / "s.zarr", made_up(items, resolve(model).resolution)
        probing.extract(model, data, sigmas=[0.4], reductions=["mean", "grid4"], keep_inputs=0, output=output)
        size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
        seconds = time.perf_counter() - began
    return {"peak_gib": round(peak_gib(), 3), "store_gib": round(size / 2**30, 3), "seconds": round(seconds, 1)}


def peak_gib() -> float:
    """Return the peak memory of this process; that of rusage is its parent's, if that was larger."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20


if __name__ == "__main__":
    main()
