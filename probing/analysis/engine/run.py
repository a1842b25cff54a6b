"""How an experiment runs: seed, workers, journal, progress."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from probing.cluster import Engine
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
        memory: Memory of all fits together, in GiB: fits that need more read their features from the disk, a block at
            a time. None takes half of this machine's.
        engine: What runs the fits: threads of this machine, or ``ray``: a task of one core a site, on every core of the
            cluster of ``RAY_ADDRESS``.

    Raises:
        UserError: Fewer than one worker, or no memory.
    """

    seed: int = 0
    workers: int = 1
    journal: Path | None = None
    encoded: Path | None = None
    progress: bool = True
    memory: float | None = None
    engine: Engine = "local"

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UserError(f"Got {self.workers} workers, expected 1 or more.")
        if self.memory is not None and not self.memory > 0:
            raise UserError(f"Got a memory of {self.memory} GiB for fits, expected more than 0.")

    @property
    def bytes_of_a_fit(self) -> float:
        """Largest memory of one fit, in bytes."""
        if self.memory is not None:
            return self.memory * 2**30 / self.workers
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2 / self.workers
