"""All tokens of a few items, read on demand with the settings of a store, instead of storing those of every item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from probing.backbones import BackboneSpec, SD3Backbone
from probing.errors import UserError
from probing.features.plan import ExtractionSettings, make_plan
from probing.features.prompts import given_prompts
from probing.features.reading import read_images
from probing.features.reductions import reduce_image
from probing.preferences import PreferenceData


def settings_of(attributes: Mapping[str, Any]) -> ExtractionSettings:
    """Read the settings that a store was extracted with.

    Raises:
        UserError: The store does not say one of them.
    """
    # A store of own prompts does not say so.
    attributes = {"prompts": "own", **attributes}
    names = [field.name for field in fields(ExtractionSettings) if field.name != "sigmas"]
    missing = [name for name in names if name not in attributes]
    if missing:
        raise UserError(f"The store does not say its {', '.join(missing)}; extract it again with this version.")
    values: dict[str, Any] = {
        name: tuple(attributes[name]) if isinstance(attributes[name], list) else attributes[name] for name in names
    }
    return ExtractionSettings(**values)


def check_same_model(attributes: Mapping[str, Any], backbone: SD3Backbone) -> None:
    """Refuse another model, or other weights, than the store was made with.

    Raises:
        UserError: With what differs.
    """
    found = {"model": backbone.spec.name, "config_hash": backbone.spec.architecture.config_hash}
    different = [
        f"{name} is {attributes[name]} there and {value} here"
        for name, value in found.items()
        if name in attributes and attributes[name] != value
    ]
    # A store of an earlier version has no digests of parts.
    parts = attributes.get("parts") or backbone.parts
    other = sorted(name for name in {*parts, *backbone.parts} if parts.get(name) != backbone.parts.get(name))
    different += [f"the files of {name} are others" for name in other]
    if different:
        raise UserError(
            f"The store was made with another model: {'; '.join(different)}; give the same by --model, and by "
            f"--transformer where it had one."
        )


def read_image_tokens(
    spec: BackboneSpec,
    backbone: SD3Backbone,
    data: PreferenceData,
    item_ids: Sequence[str],
    settings: ExtractionSettings,
    *,
    sigma: float,
    block: int,
) -> Float[np.ndarray, "item token channel"]:
    """Read all image tokens of one block at one noise level, float32, items in the order asked.

    Args:
        spec: Of the backbone.
        backbone: Loaded.
        data: The items of the store, for words of other prompts are dealt out among them.
        item_ids: Which items.
        settings: Of the store, by :func:`settings_of`: the same noise, resolution and text.
        sigma: Noise level.
        block: Which block.

    Raises:
        UserError: An unknown item, a bad image, a block that the model lacks.
    """
    told = given_prompts(data.items, data.pairs, settings.prompts, settings.seed)
    known = data.items.assign(prompt=told).set_index("item_id", drop=False)
    unknown = [item for item in item_ids if item not in known.index]
    if unknown:
        raise UserError(f"{data.name} has no item {unknown[0]}; give the data set that the store was made from.")
    settings = replace(settings, sigmas=(sigma,), blocks=(block,), streams=("image",), reductions=("tokens",))
    items = known.loc[list(item_ids)]
    plan = make_plan(spec, settings, items=len(items), prompts=items["prompt_id"].nunique())
    grid = spec.architecture.token_grid(settings.resolution)

    def keep(_: int, streams: dict[str, Tensor | None]) -> Tensor:
        tokens = streams["image"]
        assert tokens is not None, "every block gives image tokens"
        return reduce_image(tokens, grid, ["tokens"])["tokens"]

    readings = read_images(plan, backbone, data, items, keep)
    return np.concatenate([reading.blocks[0].cpu().numpy() for reading in readings])
