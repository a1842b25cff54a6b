"""Measure forwards a second by batch size: ``python benchmarks/batch_size.py``.

Every block of a model is read in one forward, as in an extraction. Batch sizes take turns; the best turn of each
counts, since other work on the machine only slows. Writes forwards a second, and their ratio to those of 16 items at
once, to ``batch_size.csv`` beside this file.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
import torch

from probing.backbones import load_backbone, pick_compute_dtype, pick_device, resolve
from probing.features.settings import fitting_batch_size
from probing.features.trace import BlockTrace

SIZES = (4, 8, 16, 32, 64, 128)
REFERENCE, ITEMS = 16, 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["testbed-xs", "testbed-s", "testbed-m", "testbed-l"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    arguments = parser.parse_args()
    device, rows = pick_device(arguments.device), []
    for name in arguments.models:
        spec = resolve(name)
        backbone = load_backbone(spec, device=device, compute_dtype=pick_compute_dtype("auto", device))
        words = backbone.encode_prompts(["a small red circle"])
        trace, architecture = BlockTrace(backbone), spec.architecture
        shape, blocks = architecture.latent_shape(spec.resolution), range(architecture.num_blocks)
        grid = architecture.token_grid(spec.resolution)
        tokens = grid[0] * grid[1] + architecture.text_tokens(spec.t5_length)
        best = dict.fromkeys(SIZES, 0.0)
        with backbone.on_device("transformer"):
            for _ in range(arguments.turns):
                for size in SIZES:
                    noisy, rows_of = torch.randn(size, *shape), torch.zeros(size, dtype=torch.long)
                    conditioning = words.rows(rows_of).to(device)
                    began = time.perf_counter()
                    for _ in range(ITEMS // size):
                        inputs, layout = backbone.inputs(noisy, conditioning, 0.6), backbone.layout(noisy, conditioning)
                        read = trace.run(inputs, layout, blocks, lambda _, streams: streams["image"].float().mean(1))
                        torch.stack(read).cpu()
                    best[size] = max(best[size], ITEMS / (time.perf_counter() - began))
        for size, rate in best.items():
            rows.append(
                {
                    "model": name,
                    "device": device.type,
                    "threads": torch.get_num_threads(),
                    "tokens": tokens,
                    "batch_size": size,
                    "default": size == fitting_batch_size(tokens, device.type),
                    "forwards_per_second": round(rate, 1),
                    "ratio": round(rate / best[REFERENCE], 3),
                    "turns": arguments.turns,
                }
            )
        print(pd.DataFrame(rows[-len(SIZES) :]).to_string(index=False), flush=True)
    pd.DataFrame(rows).to_csv(arguments.output, index=False, lineterminator="\n")


if __name__ == "__main__":
    main()
