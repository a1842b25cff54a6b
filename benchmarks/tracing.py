"""Measure the cost of reading every block, relative to the bare forwards: ``python benchmarks/tracing.py``.

Three methods run the same batches in turns, so that other load slows all alike: bare forwards, plain hooks with the
same reductions, and the trace as extraction uses it. Ratios are medians over turns, with the 95%
interval of a bootstrap over turns.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from probing.backbones import load_backbone, pick_compute_dtype, pick_device, resolve
from probing.features.reductions import reduce_image, reduce_text
from probing.features.trace import BlockTrace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="testbed-xs")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--random-init", action="store_true")
    arguments = parser.parse_args()
    device = pick_device()
    spec = resolve(arguments.model)
    backbone = load_backbone(
        spec, device=device, compute_dtype=pick_compute_dtype("auto", device), random_init=arguments.random_init
    )
    architecture = spec.architecture
    side = spec.resolution // architecture.vae_factor
    with backbone.on_device("text_encoders"):
        encoded = backbone.encode_prompts(["a small red circle on a white background"] * arguments.batch_size)
    noisy = torch.randn(arguments.batch_size, architecture.latent_channels, side, side)
    conditioning = encoded.to(device)
    grid = architecture.token_grid(spec.resolution)
    blocks = range(architecture.num_blocks)

    def reduce(block, streams):
        reduced = reduce_image(streams["image"], grid, ["mean"])
        if streams["text"] is not None:
            reduced |= reduce_text(streams["text"], conditioning.parts, ["mean"])
        return reduced

    with backbone.on_device("transformer"), torch.inference_mode():
        inputs = backbone.inputs(noisy, conditioning, 0.005)
        layout = backbone.layout(noisy, conditioning)
        trace = BlockTrace(backbone)

        def bare():
            backbone.transformer(**inputs)

        def hooks():
            outputs = []
            handles = [
                block.register_forward_hook(lambda m, a, o: outputs.append(reduce(0, backbone.streams(0, o, layout))))
                for block in backbone.transformer.transformer_blocks
            ]
            backbone.transformer(**inputs)
            for handle in handles:
                handle.remove()

        methods = {"bare": bare, "hooks": hooks, "trace": lambda: trace.run(inputs, layout, blocks, reduce)}
        seconds = {name: [] for name in methods}
        for turn in range(arguments.turns + 3):
            for name, run in methods.items():
                began = time.perf_counter()
                run()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if turn >= 3:
                    seconds[name].append(time.perf_counter() - began)
    print(f"{spec.name} on {device}, batch {arguments.batch_size}, {arguments.turns} turns")
    print(f"bare forward: {1000 * np.median(seconds['bare']):.1f} ms")
    rng = np.random.default_rng(0)
    for name, base in (("hooks", "bare"), ("trace", "bare"), ("trace", "hooks")):
        ratio = np.array(seconds[name]) / np.array(seconds[base])
        drawn = np.median(ratio[rng.integers(len(ratio), size=(2000, len(ratio)))], axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        print(f"{name} / {base}: {np.median(ratio):.3f}  [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
