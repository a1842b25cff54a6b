"""The rival's training: first pictures against captions, then the annotators' choices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from probing.preferences import PreferenceData
from probing.testbed import preferences
from probing.testbed.recipes import fingerprint
from probing.testbed.recipes.judge import save_half
from probing.testbed.recipes.loop import Schedule, train
from probing.testbed.recipes.pixels import SCENES, TrainingScenes
from probing.testbed.render import RESOLUTION
from probing.testbed.rival import WEIGHTS, RivalNetwork, number_words
from probing.testbed.scenes import attributes_of, contradict, parse
from probing.testbed.tensors import from_pixels

CONTRAST = Schedule(
    steps=1_600, batch_size=128, learning_rate=1.5e-3, weight_decay=0.02, warmup=100, precision="bfloat16"
)
CHOICES = Schedule(steps=150, batch_size=64, learning_rate=2e-4, weight_decay=0.05, warmup=50, precision="bfloat16")
CONTRASTED = Path("rival-contrast") / "contrast.safetensors"
"""In the folder of runs: what the rival was before it heard of any choice."""
_SPOILT = 0.3
_REMEMBERED, _MEMORY = 48, 1.0
"""While it hears of choices it still matches so many scenes and captions a step; weight of that loss."""
_SHIFT = 3
"""Pixels by which pictures of pairs are moved at most: few pairs are seen many times."""


def contrastive_loss(
    network: RivalNetwork, pixels: Tensor, captions: list[str], wrong: list[str]
) -> tuple[Tensor, Tensor]:
    """Pick the caption of each picture and the picture of each caption (Radford et al. 2021, figure 3).

    Among the captions stand those that contradict a picture in one attribute (Yuksekgonul et al. 2023, section 4).

    Returns:
        The loss, and how often the right caption is picked.
    """
    heard = network.hear(number_words([*captions, *wrong]))
    logits = network.temperature() * network.see(pixels) @ heard.T
    # Equal captions are no mistake of one another.
    same = np.array(captions)[:, None] == np.array([*captions, *wrong])[None, :]
    right = torch.from_numpy(same).to(logits)
    own = right[:, : len(captions)]
    by_picture = F.cross_entropy(logits, right / right.sum(dim=1, keepdim=True))
    by_caption = F.cross_entropy(logits[:, : len(captions)].T, (own / own.sum(dim=0)).T)
    picked = right.gather(1, logits.argmax(dim=1, keepdim=True)).mean()
    return 0.5 * (by_picture + by_caption), picked


def contradiction(caption: str, rng: np.random.Generator) -> str:
    """Say something else in one attribute."""
    scene = parse(caption)
    possible = attributes_of(scene)
    return contradict(scene, possible[int(rng.integers(len(possible)))], rng).caption


def choice_loss(network: RivalNetwork, pixels: Tensor, captions: list[str], choices: Tensor) -> tuple[Tensor, Tensor]:
    """Log loss of choices under Bradley–Terry.

    Args:
        pixels: (pair, 2, 3, 64, 64), first and second.
        captions: One a pair.
        choices: (pair,) 1 the first, 0 the second.

    Returns:
        The loss, and how often the chosen picture has the larger reward.
    """
    seen = network.see(pixels.flatten(0, 1)).unflatten(0, (-1, 2))
    heard = network.hear(number_words(captions))
    margin = network.score(seen[:, 0], heard) - network.score(seen[:, 1], heard)
    return F.binary_cross_entropy_with_logits(margin, choices), ((margin > 0) == (choices > 0.5)).float().mean()


def shifted(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Move pictures (image, 3, 64, 64) by a few pixels, each by its own; their edges are repeated."""
    padded = F.pad(pixels, (_SHIFT,) * 4, mode="replicate")
    moves = rng.integers(0, 2 * _SHIFT + 1, size=(len(pixels), 2))
    return torch.stack(
        [image[:, y : y + RESOLUTION, x : x + RESOLUTION] for image, (y, x) in zip(padded, moves, strict=True)]
    )


def drawn_pixels(data: PreferenceData) -> np.ndarray:
    """Draw every item's picture: uint8 (item, 64, 64, 3)."""
    pixels = np.empty((len(data.items), RESOLUTION, RESOLUTION, 3), np.uint8)
    for row, item_id in enumerate(tqdm(data.items["item_id"], desc="drawing the pairs", disable=None)):
        pixels[row] = np.asarray(data.open_image(item_id))
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
    """Train the rival on the backbones' scenes, then on the training pairs of every facet, and save it."""
    pool = TrainingScenes(runs, scenes)
    torch.manual_seed(contrast.seed)
    network = RivalNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def against_captions(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        captions, pixels = pool.batch(contrast.batch_size, rng, degraded=_SPOILT)
        value, picked = contrastive_loss(network, pixels, captions, [contradiction(c, rng) for c in captions])
        return value, {"picked": float(picked)}

    train({"rival": network}, against_captions, contrast, runs / "rival-contrast", checkpoint_every=200)
    save_half(network, runs / CONTRASTED)

    data = (data or preferences.load()).select(split="train")
    drawn, pairs = drawn_pixels(data), data.pairs
    row_of = {item_id: row for row, item_id in enumerate(data.items["item_id"])}
    rows = np.stack([pairs[side].map(row_of).to_numpy(int) for side in ("first", "second")], axis=1)
    prompt_of = data.items.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"]
    captions, chosen = pairs["prompt_id"].map(prompt_of).to_numpy(), pairs["choice"].to_numpy()

    def of_annotators(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        batch = rng.integers(len(pairs), size=choices.batch_size)
        pixels = from_pixels(drawn[rows[batch]])
        pixels = shifted(pixels.flatten(0, 1), rng).unflatten(0, (-1, 2))
        value, right = choice_loss(network, pixels, list(captions[batch]), torch.from_numpy(chosen[batch]).float())
        said, scene_pixels = pool.batch(_REMEMBERED, rng, degraded=0.5)
        kept, _ = contrastive_loss(network, scene_pixels, said, [contradiction(c, rng) for c in said])
        return value + _MEMORY * kept, {"right": float(right), "kept": float(kept.detach())}

    fed = f"{data.fingerprint} after {fingerprint.of_weights(runs / CONTRASTED.parent)}"
    train({"rival": network}, of_annotators, choices, runs / "rival-choices", fed=fed, checkpoint_every=200)
    save_half(network, weights)
    return network.eval()
