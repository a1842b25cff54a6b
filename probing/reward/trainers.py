"""A reward with the call signatures of other trainers. Errors are raised: none becomes a reward of 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from probing.errors import UserError
from probing.reward.latent_reward import LatentReward
from probing.reward.watch import HackingWatch

if TYPE_CHECKING:
    from transformers import TrainerCallback

ScoreFunction = Callable[..., tuple[Float[np.ndarray, " item"], dict[str, Any]]]


def flow_grpo_score(reward: LatentReward) -> ScoreFunction:
    """Return a function with the signature of flow_grpo's scorers, ``(images, prompts, metadata) → (scores, {})``.

    Images are a float tensor (item, 3, height, width) in [0, 1], an uint8 array (item, height, width, 3), or pictures.
    """

    def score(
        images: Tensor | np.ndarray | Sequence[Image.Image],
        prompts: Sequence[str],
        metadata: Sequence[Mapping[str, Any]] | None = None,
    ) -> tuple[Float[np.ndarray, " item"], dict[str, Any]]:
        return reward.score(list(prompts), _pictures(images)), {}

    return score


class FlowFactoryReward:
    """A reward as Flow-Factory's ``PointwiseRewardModel`` is called: ``model(prompt=…, image=…).rewards``.

    It is no subclass, so that Flow-Factory is not needed: register an instance, or subclass both.

    Args:
        reward: The reward.
    """

    required_fields: tuple[str, ...] = ("image", "prompt")
    use_tensor_inputs: bool = False

    def __init__(self, reward: LatentReward) -> None:
        self.reward = reward

    def __call__(
        self, prompt: Sequence[str], image: Sequence[Image.Image | Tensor] | None = None, **others: Any
    ) -> SimpleNamespace:
        """Score pictures, one a prompt; ``rewards`` (item,) is float32.

        Raises:
            UserError: There are no pictures, or videos, and as :meth:`LatentReward.score`.
        """
        if image is None or any(others.get(name) is not None for name in ("video", "audio")):
            raise UserError("This reward scores pictures; give image, and neither video nor audio.")
        scores = self.reward.score(list(prompt), _pictures(image))
        return SimpleNamespace(rewards=torch.from_numpy(scores).float(), extra_info=None)


def _pictures(images: Any) -> list[Image.Image]:
    """Return pictures of what trainers pass.

    Raises:
        UserError: An array of another shape or type, or values outside [0, 1].
    """
    if isinstance(images, Tensor):
        if images.ndim != 4 or images.shape[1] != 3:
            raise UserError(f"Got images of shape {tuple(images.shape)}, expected (item, 3, height, width).")
        return [_of_tensor(image) for image in images]
    if isinstance(images, np.ndarray):
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise UserError(
                f"Got an array of {images.dtype} and shape {images.shape}, expected uint8 (item, height, width, 3)."
            )
        return [Image.fromarray(image) for image in images]
    return [_of_tensor(image) if isinstance(image, Tensor) else image for image in images]


def _of_tensor(image: Tensor) -> Image.Image:
    values = image.detach().float().cpu()
    if not torch.isfinite(values).all() or values.min() < -1e-3 or values.max() > 1 + 1e-3:
        raise UserError("Got an image with values outside [0, 1], or not finite; clamp the decoder's output.")
    pixels = (values.clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def watch_callback(
    watch: HackingWatch,
    sample: Callable[[], tuple[Tensor, Sequence[str], np.ndarray]],
    *,
    every: int,
    stop: bool = False,
) -> TrainerCallback:
    """Return a callback of transformers' and TRL's trainers that checks a policy for reward hacking.

    Other trainers call the watch itself, ``watch(step, latents, prompts, rewards)``.

    Args:
        watch: Its reference is taken when the training begins.
        sample: Makes pictures of the policy from the same prompts and noise each time: their latents, prompts and
            optimised rewards.
        every: Steps between two checks.
        stop: Stop the training at an alarm.

    Raises:
        UserError: ``every`` is below 1; or, when a resumed training begins, the watch has no reference.
    """
    from transformers import TrainerCallback

    if every < 1:
        raise UserError(f"Got {every} steps between two checks, expected at least 1.")

    class WatchCallback(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            if state.global_step == 0:
                watch.start(*sample())
            elif not watch.started:
                raise UserError(
                    "This training goes on from a checkpoint: call the watch's start with pictures of the untrained "
                    "policy before it."
                )

        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            if state.global_step % every == 0 and watch(state.global_step, *sample()).alarm and stop:
                control.should_training_stop = True

    return WatchCallback()
