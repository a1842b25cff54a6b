"""How a backbone is adapted."""

from __future__ import annotations

from dataclasses import dataclass, field

from probing.errors import UserError
from probing.reward.adapter import AdapterSettings
from probing.seeds import check_seed


@dataclass(frozen=True)
class AdaptSettings:
    """How to train.

    Attributes:
        adapter: What is added to the backbone.
        epochs: Passes over the training pairs.
        batch_size: Pairs of a step.
        learning_rate: Of the backbone; default: 1e-4 for LoRA, 5e-6 for all weights.
        head_learning_rate: Of a network head; a linear head stays as it is.
        weight_decay: Of AdamW.
        warmup: Share of all steps in which the learning rate rises.
        ema: Decay of the mean of weights that is kept; 0 keeps the last weights.
        validation: Share of the training prompts that chooses the epoch.
        checkpointing: Compute activations again in the backward pass, to save memory.
        clip: Largest norm of the gradient.
        facet: Facet of the pairs; default: all.
        seed: Seed of order, noise and initial adapter.
    """

    adapter: AdapterSettings = field(default_factory=AdapterSettings)
    epochs: int = 2
    batch_size: int = 32
    learning_rate: float | None = None
    head_learning_rate: float = 2e-5
    weight_decay: float = 0.01
    warmup: float = 0.05
    ema: float = 0.0
    validation: float = 0.1
    checkpointing: bool = False
    clip: float = 1.0
    facet: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.epochs < 1 or self.batch_size < 1 or not 0 < self.validation < 1 or not 0 <= self.ema < 1:
            raise UserError("Give 1 or more epochs and pairs, a validation share between 0 and 1, and an EMA below 1.")
