"""Measure whether the memory of an extraction grows with its items: ``python benchmarks/memory_of_items.py``.

Extracts a number of items of the testbed and ten times as many, each in a process of its own, and writes the largest
memory of each to ``memory_of_items.csv`` beside this file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

EXTRACT = """
import resource, sys
from probing.extract import main
if main(sys.argv[1:]):
    raise SystemExit(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="testbed-xs")
    parser.add_argument("--items", type=int, default=900)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    arguments = parser.parse_args()
    rows = []
    for items in (arguments.items, 10 * arguments.items):
        with tempfile.TemporaryDirectory() as folder:
            # Runs are short where grids are kept, so that both extractions have several.
            options = ["--model", arguments.model, "--limit", str(items), "--sigmas", "0.4", "--keep-inputs", "0"]
            options += ["--reductions", "grid4"]
            command = [sys.executable, "-c", EXTRACT, *options, "--output", f"{folder}/s.zarr"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append({"model": arguments.model, "items": items, "peak_gib": round(float(done.stdout.split()[-1]), 3)})
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table["ratio"] = (table["peak_gib"] / table["peak_gib"].iloc[0]).round(3)
    table.to_csv(arguments.output, index=False)
    print(f"\n{arguments.output}")


if __name__ == "__main__":
    main()
