"""Rewards that a policy can optimise on what it has made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from probing.backbones import Conditioning
from probing.reward import LatentReward
from probing.testbed.caption_check import Reading
from probing.testbed.judge import Judge
from probing.testbed.pictures import decode, judged
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

    @cached_property
    def readings(self) -> list[Reading]:
        """What the judge finds in the pictures."""
        return Judge.load().read(self.pictures)


Reward: TypeAlias = Callable[[Batch], Float[np.ndarray, " item"]]


def judge_reward(batch: Batch) -> Float[np.ndarray, " item"]:
    """Return the true reward: what no user has, and the upper bound of the others."""
    return judged(batch.readings, batch.captions)["judge"].to_numpy()


class RivalReward:
    """The baseline reward model on decoded pictures."""

    def __init__(self) -> None:
        self._rival = Rival.load()

    def __call__(self, batch: Batch) -> Float[np.ndarray, " item"]:
        return self._rival.rewards(batch.pictures, batch.captions).astype(np.float64)


class KeptReward:
    """A kept latent reward on latents, without decoding.

    Args:
        reward: Its backbone shares text encoders and VAE with the policy, as all testbed models do.
    """

    def __init__(self, reward: LatentReward) -> None:
        self._reward = reward

    def __call__(self, batch: Batch) -> Float[np.ndarray, " item"]:
        return self._reward.score_latents(batch.latents, conditioning=batch.conditioning)
