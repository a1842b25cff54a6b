"""How an experiment runs: seed, workers, journal, progress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from probing.errors import UserError


@dataclass(frozen=True)
class Run:
    """How to run an experiment; only ``seed`` changes a value.

    Attributes:
        seed: Seed of the bootstrap, of shuffles and of whatever else is drawn.
        workers: Fits at once, each with one thread of linear algebra if there are several.
        journal: Folder that keeps every finished fit, so that an interrupted run continues and another experiment on
            the same pairs does not repeat it; None keeps nothing.
        encoded: Folder of encoded pictures and prompts, which experiments that run forwards read and add to; None keeps
            nothing.
        progress: Show progress bars.

    Raises:
        UserError: Fewer than one worker.
    """

    seed: int = 0
    workers: int = 1
    journal: Path | None = None
    encoded: Path | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UserError(f"Got {self.workers} workers, expected 1 or more.")
