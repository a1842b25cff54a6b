"""Measure the cost of listing a million pairs: ``python benchmarks/listing.py``.

Writes a synthetic HPDv3 ``train.json`` (two new images per record, three records per prompt of 25 words). Two methods
list and split it in turns, each in a new process: this package (checked pairs and items, random sides, a split by
prompt), and plain code (``json.load``, one pandas table of pairs, one of items, scikit-learn's split by group; no
checks). Prints seconds and peak memory of each process; the ratio is the median over turns, with its range. ``--only
probing`` leaves plain code out, which holds the whole file in memory.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

WORDS = ("cat", "dog", "sunset", "photo", "portrait", "of", "a", "the", "in", "mountain", "river", "city")
MODELS = ("flux", "sd2", "sdxl", "kolors", "real", "midjourney", "hunyuan", "sd3")

_BEGIN = "import resource, sys, time; from pathlib import Path; root = Path(sys.argv[1])"
_END = "print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)"
METHODS = {
    "probing": """
from probing.preferences import load_pairs
from probing.preferences.splits import split_pairs
began = time.perf_counter()
data = load_pairs("hpdv3", root=root, split="train")
pairs = split_pairs(data.pairs, "prompt")
""",
    "by hand": """
import json
import numpy as np, pandas as pd
from sklearn.model_selection import GroupShuffleSplit
began = time.perf_counter()
records = json.loads((root / "train.json").read_text())
pairs = pd.DataFrame(records)
swap = np.random.default_rng(0).random(len(pairs)) < 0.5
pairs["first"] = np.where(swap, pairs["path2"], pairs["path1"])
pairs["second"] = np.where(swap, pairs["path1"], pairs["path2"])
sides = [pairs[["prompt", side]].set_axis(["prompt", "image"], axis=1) for side in ("first", "second")]
items = pd.concat(sides).drop_duplicates()
train, test = next(GroupShuffleSplit(1, test_size=0.2, random_state=0).split(pairs, groups=pairs["prompt"]))
""",
}


def write(path: Path, records: int) -> None:
    with path.open("w") as file:
        for number in range(records):
            prompt, rng = random.Random(number // 3), random.Random(-1 - number)
            voted = number % 2 == 0
            record = {
                "prompt": " ".join(prompt.choices(WORDS, k=25)) + f" {number // 3}",
                "choice_dist": [rng.randint(5, 15), rng.randint(0, 5)] if voted else None,
                "confidence": round(rng.random(), 4) if voted else None,
                "path1": f"images/uuid_{rng.getrandbits(128):032x}.jpg",
                "path2": f"images/uuid_{rng.getrandbits(128):032x}.jpg",
                "model1": rng.choice(MODELS),
                "model2": rng.choice(MODELS),
            }
            file.write(("[\n" if number == 0 else ",\n") + json.dumps(record))
        file.write("\n]\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", choices=sorted(METHODS), help="measure one method alone")
    arguments = parser.parse_args()
    methods = {name: code for name, code in METHODS.items() if arguments.only in (None, name)}
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "train.json", arguments.records)
        for _ in range(arguments.turns):
            for name, code in methods.items():
                command = [sys.executable, "-c", f"{_BEGIN}\n{code}\n{_END}", folder]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                measured[name].append(tuple(map(float, output.split())))
    print(f"{arguments.records:,} records, {arguments.turns} turns: median [least, most]")
    for name, runs in measured.items():
        seconds, memory = np.array(runs).T
        print(f"{name:>8}: {_range(seconds)} s, {_range(memory)} GiB of peak memory")
    if len(methods) < len(METHODS):
        return
    ratios = np.array(measured["probing"]) / np.array(measured["by hand"])
    print(f"   ratio: {_range(ratios[:, 0])} of the time, {_range(ratios[:, 1])} of the memory")


def _range(values: np.ndarray) -> str:
    return f"{np.median(values):.2f} [{values.min():.2f}, {values.max():.2f}]"


if __name__ == "__main__":
    main()
