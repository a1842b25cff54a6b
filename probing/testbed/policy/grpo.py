"""The objective of Flow-GRPO: advantages within groups, a clipped ratio, and the distance from the reference."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from probing.testbed.policy.flow_sde import Step

LARGEST_ADVANTAGE = 5.0
_SMALL = 1e-4


def advantages(rewards: Float[np.ndarray, " item"], groups: np.ndarray) -> Float[np.ndarray, " item"]:
    """Standardise rewards within each group, and clip them.

    Args:
        rewards: Of the pictures.
        groups: Prompt of each picture.

    Raises:
        ValueError: A reward is not finite.
    """
    if not np.isfinite(rewards).all():
        raise ValueError("A reward is not finite; check the reward.")
    _, group = np.unique(groups, return_inverse=True)
    sizes = np.bincount(group)
    centred = rewards - (np.bincount(group, rewards) / sizes)[group]
    deviation = np.sqrt(np.bincount(group, centred**2) / sizes)[group]
    return np.clip(centred / (deviation + _SMALL), -LARGEST_ADVANTAGE, LARGEST_ADVANTAGE)


def policy_loss(
    log_probabilities: Float[Tensor, " item"],
    before: Float[Tensor, " item"],
    advantage: Float[Tensor, " item"],
    clip: float,
) -> Float[Tensor, ""]:
    """Return −E[min(ρA, clip(ρ, 1 ± clip)·A)] with the ratio ρ of new and old densities (Schulman et al. 2017)."""
    ratio = torch.exp(log_probabilities - before)
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio * advantage, clipped * advantage).mean()


def divergence(step: Step, reference: Step) -> Float[Tensor, ""]:
    """Return the squared distance of the two means over 2·diffusion², mean over components, as published.

    It is the Kullback–Leibler divergence of the two steps a component, times the length of the step.
    """
    return ((step.mean - reference.mean) ** 2).mean() / (2 * step.diffusion**2)
