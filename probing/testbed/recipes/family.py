"""Train every size and seed of the family, each in its own process, several at once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from probing.errors import UserError
from probing.progress import progress
from probing.shipped import WEIGHTS
from probing.testbed.recipes import assemble, mmdit
from probing.testbed.sizes import SEEDS, SIZES, run_name


def trainings() -> list[tuple[str, int]]:
    """List sizes and seeds, the longest training first, so that parallel jobs end together."""
    return [(size, seed) for size in reversed(SIZES) for seed in SEEDS[size]]


def run(
    runs: Path,
    weights: Path = WEIGHTS,
    *,
    jobs: int = 1,
    device: torch.device | str = "cpu",
    options: Sequence[str] = (),
) -> list[Path]:
    """Run all of :func:`trainings` and assemble the results.

    Each training is a process, so that kernels of different trainings do not wait for each other and a failure stays
    within one training. A training resumes from its last checkpoint when the command is run again.

    Args:
        runs: Holds the VAE and the text encoders. Receives one folder for each training, with its output in
            ``output.log``.
        weights: Receives the pipelines and the further trainings.
        jobs: Number of simultaneous trainings, and of workers that draw scenes.
        device: Where the scenes are encoded.
        options: Further options of ``python -m probing.testbed.train mmdit``, the same for all trainings.

    Returns:
        The folders written.

    Raises:
        UserError: A training failed. The results of the others stay in ``runs``.
    """
    mmdit.EncodedScenes(runs, device=device, workers=jobs)

    def train(training: tuple[str, int]) -> int:
        size, seed = training
        folder = runs / f"mmdit-{run_name(size, seed)}"
        folder.mkdir(parents=True, exist_ok=True)
        identity = ["--runs", str(runs), "--size", size, "--seed", str(seed)]
        command = [sys.executable, "-m", "probing.testbed.train", "mmdit", *identity, *options]
        with (folder / "output.log").open("a") as log:
            return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode

    todo = trainings()
    failed = []
    with ThreadPoolExecutor(jobs) as pool, progress(len(todo), "training", "models") as bar:
        for training, status in zip(todo, pool.map(train, todo), strict=True):
            failed += [run_name(*training)] * bool(status)
            bar.update()
    if failed:
        raise UserError(
            f"The training of {', '.join(failed)} failed with the error in "
            f"{runs / f'mmdit-{failed[0]}' / 'output.log'}; run the same command again to resume."
        )
    return [folder for size, seed in todo for folder in assemble.run(runs, size, seed, weights)]
