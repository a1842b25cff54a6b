"""Size of a store's backbone, cost of a forward, and training steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from probing.analysis.engine import FeatureSource
from probing.errors import UserError


class ModelSize(NamedTuple):
    """Parameters of a transformer, and operations of one forward of one item."""

    parameters: float
    forward_flops: float


def size_of(store: FeatureSource) -> ModelSize:
    """Return the size that extraction recorded in a store; for an older store count the model of that name.

    Raises:
        UserError: The store does not record it, and its model is not in the registry.
    """
    attributes = store.attributes
    if "parameters" in attributes and "forward_flops" in attributes:
        return ModelSize(float(attributes["parameters"]), float(attributes["forward_flops"]))
    # Only an older store needs the libraries of models.
    from probing.backbones import resolve

    name = str(attributes.get("model"))
    try:
        architecture = resolve(name).architecture
    except UserError as error:
        raise UserError(
            f"The store of {name} does not record the size of its backbone, and the registry has no such model; "
            f"extract it again with this version."
        ) from error
    if architecture.config_hash != attributes.get("config_hash", architecture.config_hash):
        raise UserError(f"The model {name} differs from the store's; extract the store again with this version.")
    text = architecture.text_tokens(int(attributes.get("t5_length", 0)))
    resolution = int(attributes.get("resolution", architecture.native_resolution))
    return ModelSize(float(architecture.parameters), float(architecture.forward_flops(resolution, text)))


def training_steps(store: FeatureSource) -> float:
    """Return the ``steps`` of the ``card.json`` beside the model's weights; NaN without a card."""
    from probing.backbones import resolve

    try:
        spec = resolve(str(store.attributes.get("model")))
    except UserError:
        return float("nan")
    card = Path(spec.tuning.transformer or spec.source) / "card.json"
    steps = json.loads(card.read_text()).get("steps") if card.is_file() else None
    return float("nan") if steps is None else float(steps)
