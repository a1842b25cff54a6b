"""Measure how long commands take to start, beside the import of torch: ``python benchmarks/startup.py``.

Each command and ``import torch`` run in turns, each in a new process, after one run that fills the disk's cache. Writes
the median seconds and the median ratio over turns, each with its range, to ``startup.csv`` beside this file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

COMMANDS = {
    "extract --help": ["-m", "probing.extract", "--help"],
    "extract --dry-run, a model of the hub": ["-m", "probing.extract", "--model", "sd35-medium", "--dry-run"],
    "extract --dry-run, a model folder": ["-m", "probing.extract", "--model", "testbed-s", "--dry-run"],
    "reproduce --help": ["-m", "probing.reproduce", "--help"],
    "measure --help": ["-m", "probing.measure", "--help"],
    "figures --help": ["-m", "probing.figures", "--help"],
    "score --help": ["-m", "probing.score", "--help"],
    "audit --help": ["-m", "probing.audit", "--help"],
}
TORCH = ["-c", "import torch"]


def seconds(arguments: list[str], folder: Path) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=folder)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    arguments = parser.parse_args()
    root, rows = Path(__file__).parents[1], []
    for name, command in COMMANDS.items():
        seconds(command, root)
        turns = pd.DataFrame(
            [{"seconds": seconds(command, root), "torch": seconds(TORCH, root)} for _ in range(arguments.turns)]
        )
        turns["ratio"] = turns["seconds"] / turns["torch"]
        summary = {
            f"{column}{suffix}": round(float(getattr(turns[column], how)()), 3)
            for column in ("seconds", "ratio")
            for suffix, how in (("", "median"), ("_low", "min"), ("_high", "max"))
        }
        rows.append({"command": name, **summary, "turns": arguments.turns})
        print(f"{name}: {rows[-1]['seconds']} s, {rows[-1]['ratio']} times import torch", flush=True)
    pd.DataFrame(rows).to_csv(arguments.output, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
