"""Measure the baseline reward model on test pairs, after each stage of its training, and write its card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from probing.preferences import PreferenceData
from probing.testbed import preferences, truth
from probing.testbed.recipes import rival as recipe
from probing.testbed.recipes.cards import write_card
from probing.testbed.rival import WEIGHTS, Rival, score_items


def run(runs: Path, weights: Path = WEIGHTS, *, data: PreferenceData | None = None) -> Path:
    """Measure the saved model; write ``card.json`` and ``README.md`` beside it.

    Args:
        runs: Folder of the training. If it holds the weights after the contrastive stage, these are measured too.
        weights: The file of the model.
        data: The preference data; the testbed's if None.

    Returns:
        The path of ``README.md``.
    """
    data = (data or preferences.load()).select(split="test")
    model = Rival.load(weights)
    card: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "bytes": weights.stat().st_size,
        "schedules": {"contrast": asdict(recipe.CONTRAST), "choices": asdict(recipe.CHOICES)},
        **_accuracies(data, model.rewards),
    }
    contrastive = runs / recipe.CONTRASTIVE_WEIGHTS
    if contrastive.exists():
        card["agreement"] = _accuracies(data, Rival.load(contrastive).agreement)["accuracy"]
    return write_card(weights.parent, "rival_card", card)


def _accuracies(data: PreferenceData, score: Callable[..., Any]) -> dict[str, Any]:
    scores = score_items(data, score)
    rewards = dict(zip(scores["item_id"], scores["reward"], strict=True))
    alignment = data.keep((data.pairs["facet"] == "alignment").to_numpy())
    return {
        "accuracy": truth.accuracy(data, rewards).to_dict("records"),
        "by_attribute": truth.accuracy(alignment, rewards, ("split", "facet", "attribute")).to_dict("records"),
    }
