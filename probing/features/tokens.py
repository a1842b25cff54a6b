"""Read all tokens of a few items with the settings of a store, instead of storing those of every item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from probing.backbones import Backbone, BackboneSpec, Streams
from probing.errors import UserError
from probing.features.kept_inputs import KeptInputs
from probing.features.plan import make_plan
from probing.features.prompts import given_prompts
from probing.features.reading import Masks, read_images
from probing.features.reductions import reduce_image
from probing.features.settings import ADDED_SETTINGS, ExtractionSettings
from probing.preferences import PreferenceData


def settings_of(attributes: Mapping[str, Any]) -> ExtractionSettings:
    """Read the settings of an extraction from the attributes of a store, or from the manifest of a reward.

    Raises:
        UserError: One of them is missing.
    """
    attributes = {**ADDED_SETTINGS, **attributes}
    names = [field.name for field in fields(ExtractionSettings) if field.name not in ("sigmas", "placement")]
    missing = [name for name in names if name not in attributes]
    if missing:
        raise UserError(
            f"The settings {', '.join(missing)} are missing; make the store or the reward again with this version."
        )
    values: dict[str, Any] = {
        name: tuple(attributes[name]) if isinstance(attributes[name], list) else attributes[name] for name in names
    }
    return ExtractionSettings(**values)


def check_same_model(attributes: Mapping[str, Any], backbone: Backbone) -> None:
    """Refuse another model, or other weights, than the store was made with.

    Raises:
        UserError: With the differences.
    """
    here = {"model": backbone.spec.name, "config_hash": backbone.spec.architecture.config_hash}
    different = [
        f"{name} is {attributes[name]} in the store and {value} here"
        for name, value in here.items()
        if name in attributes and attributes[name] != value
    ]
    # A store of an earlier version has no digests of parts.
    parts = attributes.get("parts") or backbone.parts
    changed = sorted(name for name in {*parts, *backbone.parts} if parts.get(name) != backbone.parts.get(name))
    different += [f"the files of {name} differ" for name in changed]
    if different:
        raise UserError(
            f"The store was made with another model: {'; '.join(different)}; give the same by --model, and by "
            f"--transformer if it had one."
        )


def read_image_tokens(
    spec: BackboneSpec,
    backbone: Backbone,
    data: PreferenceData,
    item_ids: Sequence[str],
    settings: ExtractionSettings,
    *,
    sigma: float,
    block: int,
    kept: KeptInputs | None = None,
) -> Float[np.ndarray, "item token channel"]:
    """Read all image tokens of one block at one noise level, float32, in the order of ``item_ids``.

    Args:
        spec: Of the backbone.
        backbone: Loaded.
        data: All items of the store: foreign prompts are drawn among them.
        item_ids: Which items.
        settings: Of the store, by :func:`settings_of`: the same noise, resolution and text.
        sigma: Noise level.
        block: Which block.
        kept: What earlier readings encoded; None keeps nothing.

    Raises:
        UserError: An unknown item, a bad image, a block that the model lacks.
    """
    prompts = given_prompts(data.items, data.pairs, settings.prompts, settings.seed)
    by_id = data.items.assign(prompt=prompts).set_index("item_id", drop=False)
    unknown = [item for item in item_ids if item not in by_id.index]
    if unknown:
        raise UserError(f"{data.name} has no item {unknown[0]}; give the data set that the store was made from.")
    settings = replace(settings, sigmas=(sigma,), blocks=(block,), streams=("image",), reductions=("tokens",))
    items = by_id.loc[list(item_ids)]
    plan = make_plan(spec, settings, items=len(items), prompts=items["prompt_id"].nunique())
    grid = spec.architecture.token_grid(settings.resolution)

    def keep(_: int, streams: Streams, masks: Masks) -> Tensor:
        tokens = streams["image"]
        assert tokens is not None, "every block gives image tokens"
        return reduce_image(tokens, grid, ["tokens"])["tokens"]

    readings = read_images(plan, backbone, data, items, keep, kept)
    return np.concatenate([reading.blocks[0].cpu().numpy() for reading in readings])
