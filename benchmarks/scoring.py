"""Measure what a score costs, from latents and from pictures: ``python benchmarks/scoring.py --reward my-reward``.

Three ways to score what a sampler made, as in Table 2 of DiT-Reward: the reward on latents; the reward on the decoded
pictures, which the VAE encodes again; and the baseline reward model on the decoded pictures (``testbed-rival``). Each
runs in a process of its own, in turns, at batch 1 and at the best batch; the prompts are encoded before. Writes the
milliseconds of one item and the peak memory of the process, median and range over turns, to ``scoring.csv``.

Full-size models are not run: ``scoring_flops.csv`` has the operations of one item at 512² for SD3.5 and for a scorer of
Qwen2-VL-7B's shape (HPSv3's), by closed forms.
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

WAYS = ("latents", "pictures", "pictures, baseline")
BATCHES = (1, 8, 32, 64)
TEXT_TOKENS, RESOLUTION = 333, 512
QWEN_TEXT = 100
"""Words of a prompt and of HPSv3's instruction, in tokens; few beside those of the picture."""


def measure(reward_folder: str, way: str, batch: int, seconds: float) -> dict[str, float]:
    """Score batches of noise for some seconds in this process."""
    import numpy as np
    import torch

    import probing
    from probing.testbed.pictures import decode
    from probing.testbed.rival import Rival

    reward = probing.LatentReward.load(reward_folder)
    backbone = reward.opened.backbone
    shape = backbone.spec.architecture.latent_shape(int(reward.manifest.extraction["resolution"]))
    prompt = "a small red circle"
    conditioning = reward.opened.encode_prompts([prompt] * batch)
    latents = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
    rival = Rival.load() if way == "pictures, baseline" else None
    vae = backbone.pipeline.vae

    def once() -> None:
        if way == "latents":
            reward.score_latents(latents, conditioning=conditioning)
        elif way == "pictures":
            reward.score_latents(reward.opened.encode_images(decode(vae, latents)), conditioning=conditioning)
        else:
            assert rival is not None
            rival.rewards(decode(vae, latents), [prompt] * batch)

    once()
    began, times = time.perf_counter(), []
    while time.perf_counter() - began < seconds or len(times) < 3:
        start = time.perf_counter()
        once()
        times.append(time.perf_counter() - start)
    return {"milliseconds": 1000 * float(np.median(times)) / batch, "peak_mib": peak_mib()}


def count_flops() -> pd.DataFrame:
    """Count the operations of one item for full-size models."""
    from probing.backbones import resolve

    rows = []
    for name in ("sd35-medium", "sd35-large"):
        architecture = resolve(name).architecture
        forward, encode = (architecture.forward_flops(RESOLUTION, TEXT_TOKENS), architecture.encoding_flops(RESOLUTION))
        rows.append({"scorer": f"{name} from latents", "flops": forward})
        rows.append({"scorer": f"{name} from pictures, VAE encoder included", "flops": forward + encode})
    flops = qwen2_vl_flops(RESOLUTION // 28 * 2)
    rows.append({"scorer": "Qwen2-VL-7B's shape, decoding and preparation left out", "flops": flops})
    table = pd.DataFrame(rows).assign(resolution=RESOLUTION)
    latents = table.set_index("scorer").loc["sd35-large from latents", "flops"]
    return table.assign(ratio=(table["flops"] / latents).round(3))


def qwen2_vl_flops(side: int) -> int:
    """Count the operations of Qwen2-VL-7B on a picture of side × side patches and some words."""
    from probing.backbones.architecture import attention_flops, product_flops

    patches, width, language = side * side, 1280, 3584
    tokens = patches // 4 + QWEN_TEXT
    seen = [(patches, 3 * 2 * 14 * 14, width)]
    seen += 32 * [(patches, width, 4 * width), (patches, width, 4 * width), (patches, 4 * width, width)]
    merged = [(patches // 4, 4 * width, 4 * width), (patches // 4, 4 * width, language)]
    # Queries and outputs, keys and values of 4 of 28 heads, and the gated feed-forward.
    layer = 2 * [(tokens, language, language)] + 2 * [(tokens, language, language // 7)]
    layer += 2 * [(tokens, language, 18944)] + [(tokens, 18944, language)]
    products = product_flops([*seen, *merged, *(28 * layer)])
    return products + 32 * attention_flops(patches, width) + 28 * attention_flops(tokens, language)


def peak_mib() -> float:
    """Return the peak memory of this process; that of rusage is its parent's, if that was larger."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reward", default=None, help="folder of a reward; one is trained on testbed-s if not given")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    if arguments.one is not None:
        way, batch = arguments.one.rsplit(":", 1)
        print(json.dumps(measure(arguments.reward, way, int(batch), arguments.seconds)))
        return
    flops = count_flops()
    print(flops.to_string(index=False), flush=True)
    flops.to_csv(arguments.output / "scoring_flops.csv", index=False, lineterminator="\n")
    with tempfile.TemporaryDirectory() as folder:
        reward = arguments.reward or trained(Path(folder))
        runs = []
        for turn in range(arguments.turns):
            for batch in BATCHES:
                for way in WAYS:
                    command = [sys.executable, __file__, "--reward", reward, "--one", f"{way}:{batch}"]
                    command += ["--seconds", str(arguments.seconds)]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    run = {"way": way, "batch": batch, "turn": turn} | json.loads(done.stdout.splitlines()[-1])
                    runs.append(run)
                    print(run, flush=True)
    table = pd.DataFrame(runs)
    base = table[table["way"] == "latents"].set_index(["batch", "turn"])["milliseconds"]
    keys = zip(table["batch"], table["turn"], strict=True)
    table["ratio"] = table["milliseconds"] / [base[key] for key in keys]
    grouped = table.groupby(["way", "batch"], sort=False)
    summary = pd.concat(
        {
            f"{column}{suffix}": grouped[column].agg(how).round(3)
            for column in ("milliseconds", "peak_mib", "ratio")
            for suffix, how in (("", "median"), ("_low", "min"), ("_high", "max"))
        },
        axis=1,
    ).reset_index()
    summary.assign(turns=arguments.turns).to_csv(arguments.output / "scoring.csv", index=False, lineterminator="\n")
    print(summary[["way", "batch", "milliseconds", "peak_mib", "ratio"]].to_string(index=False))


def trained(folder: Path) -> str:
    """Train a reward on a part of the testbed, with the paper's four depths."""
    import probing

    store = probing.extract("testbed-s", probing.load_pairs("testbed", limit=600), output=folder / "s.zarr")
    return str(probing.train_reward(store, preset="dit-reward", probe="logistic").save(folder / "reward"))


if __name__ == "__main__":
    main()
