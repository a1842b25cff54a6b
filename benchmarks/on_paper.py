"""What many items cost, by closed forms: ``python benchmarks/on_paper.py``.

Nothing is run: floating-point operations and bytes are those of the plan that ``--dry-run`` prints, hours follow from a
stated speed. Writes ``on_paper.csv`` beside this file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from probing.backbones import resolve
from probing.features.plan import make_plan
from probing.features.settings import ExtractionOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--models", nargs="+", default=["sd35-medium", "sd35-large", "flux1-dev"])
    parser.add_argument("--resolutions", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--tflops", type=float, default=400.0, help="TFLOP/s of one accelerator")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    arguments = parser.parse_args()
    rows = []
    for model in arguments.models:
        spec = resolve(model)
        for resolution in arguments.resolutions:
            options = ExtractionOptions(sigmas=(0.4,), streams=("image", "text"), resolution=resolution)
            settings = options.resolve(spec, "bfloat16", "cuda")
            plan = make_plan(spec, settings, items=arguments.items, prompts=arguments.items // 4)
            rows.append(
                {
                    "model": model,
                    "resolution": resolution,
                    "items": arguments.items,
                    "tflop_an_item": round(plan.flops / plan.items / 1e12, 2),
                    "accelerator_hours": round(plan.flops / arguments.tflops / 1e12 / 3600, 1),
                    "store_tb": round(plan.disk_bytes / 1e12, 2),
                }
            )
    table = pd.DataFrame(rows)
    table.to_csv(arguments.output, index=False)
    print(f"{table.to_string(index=False)}\n\nat {arguments.tflops:g} TFLOP/s an accelerator, text encoders left out")


if __name__ == "__main__":
    main()
