"""Train the baseline reward model: contrastively on images and captions, then on the annotators' choices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from probing.preferences import PreferenceData
from probing.progress import progress
from probing.testbed import preferences
from probing.testbed.recipes import fingerprint
from probing.testbed.recipes.contrast import contrastive_loss
from probing.testbed.recipes.judge import save_half
from probing.testbed.recipes.loop import Schedule, train
from probing.testbed.recipes.pixels import SCENES, TrainingScenes, contradict_at_random
from probing.testbed.render import RESOLUTION
from probing.testbed.rival import WEIGHTS, RivalNetwork, word_ids
from probing.testbed.scenes import parse
from probing.testbed.tensors import from_pixels

CONTRAST = Schedule(
    steps=1_600, batch_size=128, learning_rate=1.5e-3, weight_decay=0.02, warmup=100, precision="bfloat16"
)
CHOICES = Schedule(steps=150, batch_size=64, learning_rate=2e-4, weight_decay=0.05, warmup=50, precision="bfloat16")
CONTRASTIVE_WEIGHTS = Path("rival-contrast") / "contrast.safetensors"
"""The weights after the contrastive stage, in the folder of runs."""
_DEGRADED = 0.3, 0.5
"""Fraction of degraded images in the contrastive loss of each stage."""
_CONTRASTIVE_BATCH, _CONTRASTIVE_WEIGHT = 48, 1.0
"""Scenes a step, and weight, of the contrastive loss in the second stage."""
_SHIFT = 3
"""Largest shift of a pair's images, in pixels: an augmentation, since the pairs are few."""


def caption_loss(
    network: RivalNetwork, pixels: Tensor, captions: list[str], rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Contrast images (image, 3, 64, 64) with their captions and with one contradicting caption for each.

    Returns:
        As :func:`probing.testbed.recipes.contrast.contrastive_loss`.
    """
    wrong = [contradict_at_random(parse(caption), rng)[1].caption for caption in captions]
    texts = network.encode_text(word_ids([*captions, *wrong]))
    return contrastive_loss(network.temperature() * network.encode_images(pixels) @ texts.T, captions, wrong)


def choice_loss(network: RivalNetwork, pixels: Tensor, captions: list[str], choices: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the log loss of choices under Bradley–Terry.

    Args:
        network: The model.
        pixels: (pair, 2, 3, 64, 64), first and second.
        captions: One for each pair.
        choices: (pair,) 1 the first, 0 the second.

    Returns:
        The loss, and how often the chosen image has the larger reward.
    """
    images = network.encode_images(pixels.flatten(0, 1)).unflatten(0, (-1, 2))
    texts = network.encode_text(word_ids(captions))
    margin = network.score(images[:, 0], texts) - network.score(images[:, 1], texts)
    return F.binary_cross_entropy_with_logits(margin, choices), ((margin > 0) == (choices > 0.5)).float().mean()


def shifted(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Shift each image (image, 3, 64, 64) by a few random pixels; the edges are repeated."""
    padded = F.pad(pixels, (_SHIFT,) * 4, mode="replicate")
    moves = rng.integers(0, 2 * _SHIFT + 1, size=(len(pixels), 2))
    return torch.stack(
        [image[:, y : y + RESOLUTION, x : x + RESOLUTION] for image, (y, x) in zip(padded, moves, strict=True)]
    )


def item_pixels(data: PreferenceData) -> np.ndarray:
    """Open the image of every item: uint8 (item, 64, 64, 3)."""
    pixels = np.empty((len(data.items), RESOLUTION, RESOLUTION, 3), np.uint8)
    with progress(len(pixels), "drawing the pairs", "images") as bar:
        for row, item_id in enumerate(data.items["item_id"]):
            pixels[row] = np.asarray(data.open_image(item_id))
            bar.update()
    return pixels


def run(
    runs: Path,
    contrast: Schedule = CONTRAST,
    choices: Schedule = CHOICES,
    *,
    scenes: int = SCENES,
    data: PreferenceData | None = None,
    weights: Path = WEIGHTS,
) -> RivalNetwork:
    """Train on the backbones' scenes, then on the training pairs of every facet, and save the model.

    Args:
        runs: Receives checkpoints and the weights after the first stage.
        contrast: Schedule of the contrastive stage.
        choices: Schedule of the stage on choices.
        scenes: Number of training scenes.
        data: The preference data; the testbed's if None.
        weights: The file to write.
    """
    pool = TrainingScenes(runs, scenes)
    torch.manual_seed(contrast.seed)
    network = RivalNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def contrastive_step(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        captions, pixels = pool.batch(contrast.batch_size, rng, degraded=_DEGRADED[0])
        value, picked = caption_loss(network, pixels, captions, rng)
        return value, {"picked": float(picked)}

    train({"rival": network}, contrastive_step, contrast, runs / "rival-contrast", checkpoint_every=200)
    save_half(network, runs / CONTRASTIVE_WEIGHTS)

    data = (data or preferences.load()).select(split="train")
    images, pairs = item_pixels(data), data.pairs
    row_of = {item_id: row for row, item_id in enumerate(data.items["item_id"])}
    rows = np.stack([pairs[side].map(row_of).to_numpy(int) for side in ("first", "second")], axis=1)
    prompt_of = data.items.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"]
    captions, chosen = pairs["prompt_id"].map(prompt_of).to_numpy(), pairs["choice"].to_numpy()

    def choice_step(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        batch = rng.integers(len(pairs), size=choices.batch_size)
        pixels = from_pixels(images[rows[batch]])
        pixels = shifted(pixels.flatten(0, 1), rng).unflatten(0, (-1, 2))
        value, right = choice_loss(network, pixels, list(captions[batch]), torch.from_numpy(chosen[batch]).float())
        scene_captions, scene_pixels = pool.batch(_CONTRASTIVE_BATCH, rng, degraded=_DEGRADED[1])
        contrastive, _ = caption_loss(network, scene_pixels, scene_captions, rng)
        numbers = {"right": float(right), "contrastive": float(contrastive.detach())}
        return value + _CONTRASTIVE_WEIGHT * contrastive, numbers

    inputs = f"{data.fingerprint} after {fingerprint.of_weights(runs / CONTRASTIVE_WEIGHTS.parent)}"
    train({"rival": network}, choice_step, choices, runs / "rival-choices", inputs=inputs, checkpoint_every=200)
    save_half(network, weights)
    return network.eval()
