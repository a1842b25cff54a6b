"""Pairs of a user: a CSV and its pictures, and the command that extracts them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from probing.extract import main

PROMPTS = [
    "a small red circle",
    "a star on a white background",
    "a square",
    "a small green square",
    "a red star",
    "a circle on a background",
]


def write_pictures(folder: Path, names: list[str], seed: int = 0) -> None:
    (folder / "img").mkdir(parents=True, exist_ok=True)
    for name in names:
        rng = np.random.default_rng([seed, *name.encode()])
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(folder / "img" / f"{name}.png")


def write_pairs(folder: Path, pairs: list[tuple], name: str = "pairs.csv") -> Path:
    """Write rows of (prompt number, chosen, rejected, tie, split)."""
    path = folder / name
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["prompt", "chosen", "rejected", "tie", "split"])
        rows.writerows([PROMPTS[p], f"img/{a}.png", f"img/{b}.png", tie, split] for p, a, b, tie, split in pairs)
    return path


def rows(count: int = len(PROMPTS)) -> list[tuple]:
    return [(p, f"{p}a", f"{p}b", False, "train" if p % 2 else "test") for p in range(count)]


def make_data(folder: Path, count: int = 4, seed: int = 0) -> Path:
    write_pictures(folder, [f"{p}{side}" for p in range(len(PROMPTS)) for side in "ab"], seed)
    return write_pairs(folder, rows(count))


def extract(model: Path, data: Path, output: Path, *options: str) -> int:
    usual = {
        "--model": str(model),
        "--data": str(data),
        "--output": str(output),
        "--batch-size": "3",
        "--t5-length": "12",
    }
    return main([*(part for name, value in usual.items() if name not in options for part in (name, value)), *options])
