"""Rewards that a policy can optimise on what it has made."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from probing.backbones import Conditioning
from probing.reward import LatentReward
from probing.reward.folder import FILES
from probing.testbed.judge import WEIGHTS as JUDGE_WEIGHTS
from probing.testbed.judge import Judge
from probing.testbed.pictures import decode, judged
from probing.testbed.rival import WEIGHTS as RIVAL_WEIGHTS
from probing.testbed.rival import Rival


class Batch:
    """Finished latents with their captions; pictures are decoded when a reward needs them.

    Args:
        latents: (item, channel, row, column).
        captions: One for each.
        conditioning: The captions, encoded by the policy's text encoders.
        vae: Decodes the latents.
    """

    def __init__(
        self,
        latents: Float[Tensor, "item channel row column"],
        captions: Sequence[str],
        conditioning: Conditioning,
        vae: Any,
    ) -> None:
        self.latents, self.captions, self.conditioning = latents, list(captions), conditioning
        self._vae = vae

    @cached_property
    def pictures(self) -> list[Image.Image]:
        """The decoded pictures."""
        return decode(self._vae, self.latents)


@runtime_checkable
class Reward(Protocol):
    """A reward that can be optimised.

    Attributes:
        identity: What it depends on, by content.
    """

    identity: str

    def __call__(self, batch: Batch) -> Float[np.ndarray, " item"]:
        """Return the reward of each picture."""
        ...


class JudgeReward:
    """The judge's true reward: no user has it, and it is the upper bound of the others."""

    def __init__(self) -> None:
        self.identity = f"judge {_digest(JUDGE_WEIGHTS)}"

    @cached_property
    def _judge(self) -> Judge:
        return Judge.load()

    def scores(self, batch: Batch) -> pd.DataFrame:
        """Return what :func:`probing.testbed.pictures.judged` measures."""
        return judged(self._judge.read(batch.pictures), batch.captions)

    def __call__(self, batch: Batch) -> Float[np.ndarray, " item"]:
        return self.scores(batch)["judge"].to_numpy()


class RivalReward:
    """The baseline reward model on decoded pictures."""

    def __init__(self) -> None:
        self.identity = f"rival {_digest(RIVAL_WEIGHTS)}"
        self._rival = Rival.load()

    def __call__(self, batch: Batch) -> Float[np.ndarray, " item"]:
        return self._rival.rewards(batch.pictures, batch.captions).astype(np.float64)


class KeptReward:
    """A kept latent reward on latents, without decoding.

    Args:
        folder: Of the reward; its backbone shares text encoders and VAE with the policy, as all testbed models do.
    """

    def __init__(self, folder: Path) -> None:
        digests = [_digest(folder / name) for name in FILES if (folder / name).is_file()]
        self.identity, self._reward = f"kept {' '.join(digests)}", LatentReward.load(folder)

    def __call__(self, batch: Batch) -> Float[np.ndarray, " item"]:
        return self._reward.score_latents(batch.latents, conditioning=batch.conditioning)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
