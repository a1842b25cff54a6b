"""How large the backbone of a store is, what a forward costs, and how long it was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from probing.analysis.engine import FeatureSource
from probing.errors import UserError


class ModelSize(NamedTuple):
    """Of a backbone: the transformer's parameters, and operations of one whole forward of one item."""

    parameters: float
    forward_flops: float


def size_of(store: FeatureSource) -> ModelSize:
    """Read the size that extraction wrote into a store; of an older one, find its model by name and count.

    Raises:
        UserError: The store does not say, and its model is not known by name here.
    """
    attributes = store.attributes
    if "parameters" in attributes and "forward_flops" in attributes:
        return ModelSize(float(attributes["parameters"]), float(attributes["forward_flops"]))
    # Only an old store needs the models' own libraries.
    from probing.backbones import resolve

    name = str(attributes.get("model"))
    try:
        architecture = resolve(name).architecture
    except UserError as error:
        raise UserError(
            f"The store of {name} does not say how large its backbone is, and no model of that name is known; "
            f"extract it again with this version."
        ) from error
    if architecture.config_hash != attributes.get("config_hash", architecture.config_hash):
        raise UserError(f"The model {name} is another than the one of the store; extract it again with this version.")
    text = architecture.text_tokens(int(attributes.get("t5_length", 0)))
    resolution = int(attributes.get("resolution", architecture.native_resolution))
    return ModelSize(float(architecture.parameters), float(architecture.forward_flops(resolution, text)))


def training_steps(store: FeatureSource) -> float:
    """Read the ``steps`` of the ``card.json`` beside the model's weights; NaN if no such card is here."""
    from probing.backbones import resolve

    try:
        spec = resolve(str(store.attributes.get("model")))
    except UserError:
        return float("nan")
    card = Path(spec.transformer or spec.source) / "card.json"
    steps = json.loads(card.read_text()).get("steps") if card.is_file() else None
    return float("nan") if steps is None else float(steps)
