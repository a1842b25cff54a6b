"""Measure what kept latents and prompts save: ``python benchmarks/kept_inputs.py``.

The same random-initialised extraction runs in turns, each in a new process and into a new store: once with the latents
and prompts that an extraction of the trained model has kept, once encoding everything anew. Writes the seconds and
their ratio, median and range over turns, to ``kept_inputs.csv`` beside this file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd


def extract(output: Path, options: list[str]) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "probing.extract", *options, "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[1])
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="testbed-s")
    parser.add_argument("--sigmas", default="0.005")
    parser.add_argument("--limit", type=int, default=2048)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    arguments = parser.parse_args()
    options = ["--model", arguments.model, "--sigmas", arguments.sigmas, "--limit", str(arguments.limit)]
    turns = []
    with tempfile.TemporaryDirectory() as folder:
        extract(Path(folder) / "trained.zarr", options)
        control = [*options, "--random-init"]
        for turn in range(arguments.turns):
            turns.append(
                {
                    "kept": extract(Path(folder) / f"kept-{turn}.zarr", control),
                    "anew": extract(Path(folder) / f"anew-{turn}.zarr", [*control, "--keep-inputs", "0"]),
                }
            )
    table = pd.DataFrame(turns).assign(ratio=lambda t: t["kept"] / t["anew"])
    row = {
        f"{column}{suffix}": round(float(getattr(table[column], how)()), 3)
        for column in table
        for suffix, how in (("", "median"), ("_low", "min"), ("_high", "max"))
    }
    about = {name: getattr(arguments, name) for name in ("model", "sigmas", "limit", "turns")}
    pd.DataFrame([{**about, **row}]).to_csv(arguments.output, index=False, lineterminator="\n")
    print(f"{row['kept']} s with kept inputs, {row['anew']} s anew: {row['ratio']} of the time")


if __name__ == "__main__":
    main()
