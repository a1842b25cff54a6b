"""Train and run the networks of the neural probes, all seeds together."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from probing.probes._heads import LOSSES, BuildHead, Head
from probing.probes._neural import ItemFeatures, NeuralProbe, NoiseLevel

_ROWS_AT_ONCE = 1024


class Trained(NamedTuple):
    """Networks of all seeds, the lowest validation loss of each seed, and its epoch, from 1."""

    network: Head
    validation_loss: Float[np.ndarray, " seed"]
    epochs: Int[np.ndarray, " seed"]


class _Seen(NamedTuple):
    """The noise level, by its place in ``levels``, whose tokens the network sees of each pair."""

    levels: Sequence[NoiseLevel]
    level: Int[np.ndarray, "seed pair"]


def train(
    probe: NeuralProbe,
    build: BuildHead,
    items: ItemFeatures,
    rows: Int[np.ndarray, "pair 2"],
    y: Float[np.ndarray, " pair"],
    weights: Float[np.ndarray, " pair"],
    training: Int[np.ndarray, " training"],
    validation: Int[np.ndarray, " validation"],
) -> Trained:
    """Train every seed until its validation loss stops decreasing, and keep its best weights.

    Args:
        probe: Options, and mean and scale of the features.
        build: Makes the network.
        items: Features of all items.
        rows: Rows of each pair's first and second item.
        y: Choices.
        weights: Weight of each pair.
        training: Pairs to train on.
        validation: Pairs to stop by.
    """
    seeds, loss, levels = probe.seeds, LOSSES[probe.loss], probe._levels()
    device = _resolve(probe.device)
    network = build([torch.Generator().manual_seed(probe.seed + index) for index in range(seeds)]).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=probe.learning_rate, weight_decay=probe.weight_decay)
    warmup = math.ceil(probe.warmup * probe.epochs * math.ceil(len(training) / probe.batch_size))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, warmup)))
    orders = [np.random.default_rng([probe.seed + index, 1]) for index in range(seeds)]
    best, epochs = np.full(seeds, np.inf), np.zeros(seeds, dtype=int)
    best_weights = copy.deepcopy(network.state_dict())
    for epoch in range(1, probe.epochs + 1):
        shuffled = np.stack([order.permutation(training) for order in orders])
        for start in range(0, shuffled.shape[1], probe.batch_size):
            batch = shuffled[:, start : start + probe.batch_size]
            drawn = [order.integers(len(levels), size=batch.shape[1]) for order in orders] if levels else None
            seen = _Seen(levels, np.stack(drawn)) if drawn else None
            margins = _margins(probe, network, items, rows[batch], device, seen)
            target, weight = (torch.from_numpy(v[batch]).float().to(device) for v in (y, weights))
            # The gradient of the sum over seeds is each seed's own gradient: seeds share no weights.
            means = (weight * loss(margins, target)).sum(1) / weight.sum(1).clamp(min=1e-12)
            optimizer.zero_grad(set_to_none=True)
            means.sum().backward()
            optimizer.step()
            schedule.step()
        targets = torch.from_numpy(y[validation]).float().expand(seeds, -1)
        of_level = [
            loss(network_margins(probe, network, items, rows[validation], device, level), targets).numpy()
            for level in (levels or (None,))
        ]
        losses = np.mean(of_level, axis=0) @ weights[validation] / weights[validation].sum()
        better = losses < best - 1e-6
        for name, parameter in network.state_dict().items():
            best_weights[name][better] = parameter[torch.from_numpy(better)]
        best, epochs = np.where(better, losses, best), np.where(better, epoch, epochs)
        if (epoch - epochs >= probe.patience).all():
            break
    network.load_state_dict(best_weights)
    return Trained(network.cpu().eval(), best, epochs)


def network_margins(
    probe: NeuralProbe,
    network: Head,
    items: ItemFeatures,
    rows: Int[np.ndarray, "pair 2"],
    device: torch.device | str,
    level: NoiseLevel | None = None,
) -> Float[Tensor, "seed pair"]:
    """Return the margins of pairs under every seed's network, on the CPU; ``level`` shows the tokens of one level."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[start : start + _ROWS_AT_ONCE]
            shared = np.broadcast_to(part, (probe.seeds, *part.shape))
            seen = None if level is None else _Seen([level], np.zeros(shared.shape[:2], int))
            parts.append(_margins(probe, network, items, shared, device, seen))
    return torch.cat(parts, dim=1).cpu()


def network_rewards(probe: NeuralProbe, network: Head, items: ItemFeatures) -> Float[np.ndarray, "row seed"]:
    """Return the rewards of all items under every seed's network."""
    parts = []
    with torch.inference_mode():
        for start in range(0, items.shape[0], _ROWS_AT_ONCE):
            rows = np.arange(start, min(start + _ROWS_AT_ONCE, items.shape[0]))
            features, padding = _read(probe, items, rows, "cpu")
            shared = features.expand(probe.seeds, *features.shape), padding.expand(probe.seeds, *padding.shape)
            parts.append(network(*shared).numpy().T)
    return np.concatenate(parts).astype(np.float64)


def _resolve(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def _read(
    probe: NeuralProbe, items: ItemFeatures, rows: Int[np.ndarray, "*rows"], device: torch.device | str
) -> tuple[Float[Tensor, "*rows_and_shape"], Bool[Tensor, "*rows_and_tokens"]]:
    """Read rows, each once and in increasing order, standardise, and mark padding: tokens that are all zeros."""
    distinct, inverse = np.unique(rows, return_inverse=True)
    raw = np.asarray(items[distinct], dtype=np.float32)
    features = torch.from_numpy((raw - probe.mean_) / probe.scale_).to(device)
    padding = torch.from_numpy((raw == 0).all(axis=-1)).to(device)
    index = torch.from_numpy(inverse.reshape(rows.shape)).to(device)
    return features[index], padding[index]


def _margins(
    probe: NeuralProbe,
    network: Head,
    items: ItemFeatures,
    rows: Int[np.ndarray, "seed pair 2"],
    device: torch.device | str,
    seen: _Seen | None,
) -> Float[Tensor, "seed pair"]:
    features, padding = _read(probe, items, rows, device)
    if seen is not None:
        hidden = torch.from_numpy(np.stack([level.hidden for level in seen.levels])[seen.level])
        padding = padding | hidden[:, :, None].to(device)
    rewards = network(features.flatten(1, 2), padding.flatten(1, 2)).unflatten(1, (-1, 2))
    margins: Float[Tensor, "seed pair"] = rewards[..., 0] - rewards[..., 1]
    if seen is not None:
        deviations = np.array([level.deviation for level in seen.levels], dtype=np.float32)
        margins = margins / torch.from_numpy(deviations[seen.level]).to(device)
    return margins
