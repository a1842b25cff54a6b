"""Measure an extraction by several workers: ``python benchmarks/workers.py``.

The same items are extracted by one and by several workers in turns, each command in a process of its own, into a new
store, nothing kept. Start and loading are part of it: the seconds of a command that extracts a tenth of the items are
taken off both, which leaves the rate at which items pass. The floor is that of bare forwards in one process with all
cores. Writes ``workers.csv`` beside this file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from probing.backbones import load_backbone, pick_compute_dtype, pick_device, resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="testbed-s")
    parser.add_argument("--items", type=int, default=8192)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    arguments = parser.parse_args()
    rates: dict[int, list[float]] = {workers: [] for workers in arguments.workers}
    for _ in range(arguments.turns):
        for workers, measured in rates.items():
            few, many = (_seconds(arguments, workers, items) for items in (arguments.items // 10, arguments.items))
            measured.append(0.9 * arguments.items / (many - few))
            print(f"{workers} workers: {measured[-1]:.1f} items/s", flush=True)
    floor = _bare(arguments.model, arguments.device)
    rows = [
        {
            "model": arguments.model,
            "device": pick_device(arguments.device).type,
            "workers": workers,
            "items": arguments.items,
            "turns": arguments.turns,
            "items_per_second": round(float(np.median(measured)), 1),
            "least": round(min(measured), 1),
            "most": round(max(measured), 1),
            "bare_forwards_per_second": round(floor, 1),
        }
        for workers, measured in rates.items()
    ]
    table = pd.DataFrame(rows)
    table.to_csv(arguments.output, index=False)
    print(f"\n{table.to_string(index=False)}\n\n{arguments.output}")


def _seconds(arguments: argparse.Namespace, workers: int, items: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        options = ["--model", arguments.model, "--limit", str(items), "--sigmas", "0.4", "--device", arguments.device]
        options += ["--workers", str(workers), "--keep-inputs", "0", "--output", f"{folder}/s.zarr"]
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "probing.extract", *options], check=True, capture_output=True)
        return time.perf_counter() - began


def _bare(model: str, name: str) -> float:
    """Return the forwards a second of one process that reads nothing, at the best of five turns."""
    device, spec, size = pick_device(name), resolve(model), 64
    backbone = load_backbone(spec, device=device, compute_dtype=pick_compute_dtype("auto", device))
    words = backbone.encode_prompts(["a small red circle"]).rows(torch.zeros(size, dtype=torch.long)).to(device)
    noisy = torch.randn(size, *spec.architecture.latent_shape(spec.resolution))
    best = 0.0
    with backbone.on_device("transformer"), torch.inference_mode():
        inputs = backbone.inputs(noisy, words, 0.4)
        for _ in range(5):
            began = time.perf_counter()
            for _ in range(4):
                backbone.transformer(**inputs)
            if device.type == "cuda":
                torch.cuda.synchronize()
            best = max(best, 4 * size / (time.perf_counter() - began))
    return best


if __name__ == "__main__":
    main()
