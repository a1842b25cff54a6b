"""Run a model at its full size with random weights: ``python benchmarks/full_size.py --model sd35-medium``.

Every part is built from the packaged configurations, so that no weights are needed. A child process extracts a few
items; its peak memory is compared with the plan's. Then bare forwards and the trace take turns in a second child:
forwards a second, the trace relative to bare forwards, and the share of the measured ceiling of matrix products in the
same type (``--turns 0`` leaves this out). On an accelerator the peak of its memory is compared too. Appends to
``full_size.csv`` beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from made_up import made_up

import probing
from probing.api.extraction import plan_extraction
from probing.backbones import compute_dtype, compute_dtype_name, pick_device, resolve
from probing.features.loading import load_for
from probing.features.reductions import reduce_image
from probing.features.trace import BlockTrace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd35-medium")
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--items", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compute-dtype", default="bfloat16")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    parser.add_argument("--child", choices=("extract", "forwards"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        row = {"extract": extraction, "forwards": forwards}[arguments.child](arguments)
        print(json.dumps(row))
        return
    row = {"model": arguments.model, "resolution": arguments.resolution, "dtype": arguments.compute_dtype}
    row |= {"device": pick_device(arguments.device).type, "threads": torch.get_num_threads(), "items": arguments.items}
    row |= {"batch_size": arguments.batch_size}
    for child in ("extract", "forwards") if arguments.turns else ("extract",):
        command = [sys.executable, __file__, "--child", child]
        for name in ("model", "resolution", "items", "batch_size", "turns", "device", "compute_dtype"):
            command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row |= json.loads(done.stdout.splitlines()[-1])
    for name, value in row.items():
        print(f"{name:>24}  {value}")
    table = pd.DataFrame([row])
    if arguments.output.exists():
        table = pd.concat([pd.read_csv(arguments.output), table], ignore_index=True)
    table.to_csv(arguments.output, index=False)


def settings_of(arguments: argparse.Namespace) -> dict[str, object]:
    return {
        "resolution": arguments.resolution,
        "batch_size": arguments.batch_size,
        "compute_dtype": arguments.compute_dtype,
        "streams": ("image", "text"),
        "random_init": "all",
    }


def extraction(arguments: argparse.Namespace) -> dict[str, float]:
    """Extract, and compare the peak of memory with the plan's."""
    with tempfile.TemporaryDirectory() as folder:
        output, data = Path(folder) / "s.zarr", made_up(arguments.items, arguments.resolution)
        plan = plan_extraction(arguments.model, data, output=output, device=arguments.device, **settings_of(arguments))
        planned = plan.plan.host_peak(plan.device_type)
        print(plan.describe(), flush=True)
        plan.run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    row = {"host_peak_gib": peak / 2**30, "planned_host_gib": planned / 2**30, "host_ratio": peak / planned}
    if plan.device_type == "cuda":
        measured, expected = torch.cuda.max_memory_allocated(), plan.plan.device_bytes
        row |= {"device_peak_gib": measured / 2**30, "planned_device_gib": expected / 2**30}
        row |= {"device_ratio": measured / expected}
    return {name: round(value, 3) for name, value in row.items()}


def forwards(arguments: argparse.Namespace) -> dict[str, float]:
    """Time the trace against bare forwards, and both against the ceiling of matrix products."""
    device = pick_device(arguments.device)
    spec = resolve(arguments.model)
    name = compute_dtype_name(arguments.compute_dtype, device.type)
    options = probing.features.settings.ExtractionOptions(
        resolution=arguments.resolution, random_init="all", batch_size=arguments.batch_size
    )
    backbone = load_for(spec, options.resolve(spec, name, device.type), device=device)
    with backbone.on_device("text_encoders"):
        conditioning = backbone.encode_prompts(["a small red circle"] * arguments.batch_size).to(device)
    noisy = torch.randn(arguments.batch_size, *spec.architecture.latent_shape(arguments.resolution))
    grid, blocks = spec.architecture.token_grid(arguments.resolution), range(spec.architecture.num_blocks)

    def reduce(block, streams):
        return None if streams["image"] is None else reduce_image(streams["image"], grid, ["mean"])["mean"].cpu()

    seconds: dict[str, list[float]] = {"bare": [], "trace": []}
    with backbone.on_device("transformer"), torch.inference_mode():
        inputs, layout, trace = (
            backbone.inputs(noisy, conditioning, 0.6),
            backbone.layout(noisy, conditioning),
            BlockTrace(backbone),
        )
        runs = {
            "bare": lambda: backbone.transformer(**inputs),
            "trace": lambda: trace.run(inputs, layout, blocks, reduce),
        }
        for turn in range(arguments.turns + 1):
            for method, run in runs.items():
                began = time.perf_counter()
                run()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                # The first turn warms up.
                if turn:
                    seconds[method].append(time.perf_counter() - began)
        ceiling = matrix_ceiling(device, compute_dtype(name))
    ratios = np.array(seconds["trace"]) / np.array(seconds["bare"])
    flops = spec.architecture.forward_flops(arguments.resolution, spec.architecture.text_tokens(spec.t5_length))
    rate = arguments.batch_size / float(np.median(seconds["trace"]))
    return {
        "forwards_per_second": round(rate, 4),
        "trace_over_bare": round(float(np.median(ratios)), 3),
        "trace_over_bare_least": round(float(ratios.min()), 3),
        "trace_over_bare_most": round(float(ratios.max()), 3),
        "ceiling_tflops": round(ceiling / 1e12, 3),
        "share_of_ceiling": round(rate * flops / ceiling, 3),
    }


def matrix_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations a second of a large product of matrices."""
    size = 8192 if device.type == "cuda" else 2048
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        one @ other
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
