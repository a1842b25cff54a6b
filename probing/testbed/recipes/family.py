"""The whole family: every size and seed, each in a process of its own, several at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tqdm import tqdm

from probing.errors import UserError
from probing.testbed.recipes import assemble, mmdit
from probing.testbed.sizes import SEEDS, SIZES, run_name


def trainings() -> list[tuple[str, int]]:
    """List sizes and seeds, the longest training first, so that none is left over at the end."""
    return [(size, seed) for size in reversed(SIZES) for seed in SEEDS[size]]


def run(
    runs: Path,
    weights: Path = assemble.WEIGHTS,
    *,
    jobs: int = 1,
    device: torch.device | str = "cpu",
    options: Sequence[str] = (),
) -> list[Path]:
    """Train all of :func:`trainings` and assemble what they gave.

    Trainings are processes, so that a small model's many short kernels do not wait for another's, and one that fails
    takes no other with it; each goes on from its last checkpoint when the command is given again.

    Args:
        runs: Holds the VAE and the text encoders; receives a folder a training, with what it said in ``output.log``.
        weights: Receives the pipelines and the further trainings.
        jobs: Trainings, and workers that draw scenes, at once.
        device: Where the scenes are encoded.
        options: Of ``python -m probing.testbed.train mmdit``, the same for all.

    Returns:
        The folders written.

    Raises:
        UserError: A training ended with an error; those that ended well are kept.
    """
    mmdit.EncodedScenes(runs, device=device, workers=jobs)

    def train(training: tuple[str, int]) -> int:
        size, seed = training
        folder = runs / f"mmdit-{run_name(size, seed)}"
        folder.mkdir(parents=True, exist_ok=True)
        said = ["--runs", str(runs), "--size", size, "--seed", str(seed)]
        with (folder / "output.log").open("a") as log:
            command = [sys.executable, "-m", "probing.testbed.train", "mmdit", *said, *options]
            return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode

    todo = trainings()
    with ThreadPoolExecutor(jobs) as pool:
        statuses = list(tqdm(pool.map(train, todo), total=len(todo), desc="trainings", disable=None))
    failed = [run_name(*one) for one, status in zip(todo, statuses, strict=True) if status]
    if failed:
        raise UserError(
            f"The training of {', '.join(failed)} ended with an error; {runs / f'mmdit-{failed[0]}' / 'output.log'} "
            f"says which, and the same command goes on with what is left."
        )
    return [folder for size, seed in todo for folder in assemble.run(runs, size, seed, weights)]
