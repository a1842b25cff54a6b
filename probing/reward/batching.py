"""One worker scores what many requests ask for, in batches; the queue is bounded, and no error becomes a score."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from probing.backbones import Conditioning
from probing.errors import UserError
from probing.reward.latent_reward import FIXED, LatentReward

if TYPE_CHECKING:
    from probing.reward.reader import RewardReader


class Busy(RuntimeError):
    """The queue is full."""


class Unusable(RuntimeError):
    """The worker has stopped, or gave a score that is not finite."""


@dataclass(eq=False)
class Job:
    """One item to score: a picture or clean latents, with a prompt or its encoding.

    Attributes:
        seed: Seed of its noise.
        picture: The picture, or None.
        latents: Clean latents (1, channel, row, column), or None.
        prompt: Its words, or None.
        conditioning: Its encoded prompt, or None.
        score: Receives the score.
    """

    seed: int
    picture: Image.Image | None = None
    latents: Tensor | None = None
    prompt: str | None = None
    conditioning: Conditioning | None = None
    score: Future[float] = field(default_factory=Future)


class Worker:
    """Scores jobs in a thread of its own.

    Args:
        reward: The reward; only this worker may use it.
        batch_size: Most items of one forward.
        wait: Seconds that the first job of a batch waits for others.
        queue_size: Most waiting jobs.
    """

    def __init__(self, reward: LatentReward, *, batch_size: int = 16, wait: float = 0.005, queue_size: int = 4096):
        self.reward, self._batch_size, self._wait = reward, batch_size, wait
        # Load before the first request, so that a missing model ends the start and not a training.
        self.reader: RewardReader = reward.opened
        self.reader.encode_reference()
        self._jobs: queue.Queue[Job | None] = queue.Queue(queue_size)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reward-worker", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether jobs are still scored."""
        return self._thread.is_alive() and not self._closed.is_set()

    @property
    def waiting(self) -> int:
        """Number of waiting jobs."""
        return self._jobs.qsize()

    def submit(self, jobs: list[Job]) -> None:
        """Queue jobs; their futures get the scores.

        Raises:
            Busy: The queue has no room for all of them.
            Unusable: The worker has stopped.
        """
        if not self.alive:
            raise Unusable("The worker has stopped; start the server again.")
        if self._jobs.maxsize - self._jobs.qsize() < len(jobs):
            raise Busy(f"{self._jobs.qsize()} items are waiting; try again.")
        for job in jobs:
            self._jobs.put(job)

    def close(self) -> None:
        """Stop after the current batch; waiting jobs get an error."""
        self._closed.set()
        self._jobs.put(None)
        self._thread.join(timeout=30)

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                batch = self._next_batch()
                if batch:
                    self._score(batch)
        finally:
            self._closed.set()
            while not self._jobs.empty():
                job = self._jobs.get_nowait()
                if job is not None:
                    job.score.set_exception(Unusable("The worker has stopped; start the server again."))

    def _next_batch(self) -> list[Job]:
        first = self._jobs.get()
        if first is None:
            return []
        batch, until = [first], time.monotonic() + self._wait
        while len(batch) < self._batch_size:
            try:
                job = self._jobs.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                self._closed.set()
                break
            batch.append(job)
        return batch

    def _score(self, batch: list[Job]) -> None:
        """Score jobs that fit in one forward together; an error of one that does not fit ends only its own group."""
        groups: dict[tuple[Any, ...], list[Job]] = {}
        for job in batch:
            shape = None if job.conditioning is None else _shapes(job.conditioning)
            groups.setdefault((job.seed, job.picture is None, shape), []).append(job)
        for (seed, _, _), jobs in groups.items():
            try:
                scores = self._scores(seed, jobs)
            except UserError as error:
                if len(jobs) == 1:
                    jobs[0].score.set_exception(error)
                else:
                    # One bad item spoils no other.
                    for job in jobs:
                        self._score([job])
                continue
            except Exception as error:
                for job in jobs:
                    job.score.set_exception(Unusable(f"The backbone failed ({type(error).__name__}: {error})."))
                continue
            for job, score in zip(jobs, scores.tolist(), strict=True):
                if np.isfinite(score):
                    job.score.set_result(score)
                else:
                    job.score.set_exception(Unusable("The score is not finite; check the picture or the latents."))

    def _scores(self, seed: int, jobs: list[Job]) -> np.ndarray:
        pictures = [job.picture for job in jobs if job.picture is not None]
        latents = (
            self.reader.encode_images(pictures)
            if pictures
            else self.reader.check_latents(torch.cat([job.latents for job in jobs if job.latents is not None]))
        )
        given = [job.conditioning for job in jobs if job.conditioning is not None]
        words = [job.prompt for job in jobs if job.prompt is not None]
        conditioning = Conditioning.concatenate(given) if given else self.reader.encode_prompts(words)
        raw = self.reader.rewards(latents, conditioning, [FIXED] * len(jobs), seed)
        manifest = self.reward.manifest
        return (raw - manifest.offset) / manifest.temperature


def _shapes(conditioning: Conditioning) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple(sorted((name, tuple(tensor.shape[1:])) for name, tensor in conditioning.tensors.items()))
