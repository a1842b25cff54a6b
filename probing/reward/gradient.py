"""The gradient of kept rewards by noisy latents, for guiding a sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from probing.errors import UserError
from probing.reward.latent_reward import FIXED, LatentReward

if TYPE_CHECKING:
    from torch import Tensor

    from probing.backbones import Conditioning


class RewardGradient:
    """Takes what :func:`probing.interventions.guide` gives, and returns a reward's gradient.

    Args:
        rewards: One reward that reads nearly clean latents: it scores the model's estimate of them, whose Jacobian by
            the noisy ones is taken as the identity. Or several, each with sites of one noise level: the one whose level
            is nearest reads the noisy latents as they are.
        noise_aware: Which of the two.

    Raises:
        UserError: No reward, several without ``noise_aware``, or with it one that reads several noise levels.
    """

    def __init__(self, rewards: LatentReward | Sequence[LatentReward], *, noise_aware: bool = False) -> None:
        self._rewards = [rewards] if isinstance(rewards, LatentReward) else list(rewards)
        self._noise_aware = noise_aware
        if not self._rewards:
            raise UserError("There is no reward to guide by.")
        if len(self._rewards) > 1 and not noise_aware:
            raise UserError(f"Got {len(self._rewards)} rewards; without noise_aware a gradient is that of one.")
        self._levels = [sorted({site.sigma for site in reward.manifest.sites}) for reward in self._rewards]
        if noise_aware and any(len(levels) > 1 for levels in self._levels):
            raise UserError("A noise-aware reward reads one noise level; train one head for each level.")
        for reward in self._rewards:
            # A sampler runs in inference mode, and what is loaded there has no gradient.
            _ = reward.opened

    def __call__(self, noisy: Tensor, clean: Tensor, conditioning: Conditioning, sigma: float) -> Tensor:
        """Return the gradient (item, channel, row, column) in host memory."""
        import torch

        words = conditioning.to(torch.device("cpu"))
        if not self._noise_aware:
            return self._rewards[0].score_and_grad(clean, conditioning=words, keys=[FIXED] * len(clean))[1]
        nearest = min(range(len(self._rewards)), key=lambda number: abs(self._levels[number][0] - sigma))
        return self._rewards[nearest].noisy_score_and_grad(noisy, sigma, conditioning=words)[1]
