"""What a store's features were computed from, and how two stores differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from probing.analysis.engine.source import FeatureSource, store_name
from probing.errors import UserError

ASPECTS: dict[str, tuple[str, ...]] = {
    "model": ("model", "config_hash"),
    "weights": ("revision", "random_init"),
    "preparation": ("resolution", "resize", "background"),
    "noise": ("pair_noise", "seed"),
    "prompts": ("prompts",),
}
"""Store attributes by aspect. The items' data are an aspect too: prompts, pictures and texts, item by item."""
DATA = "data"


@dataclass(frozen=True)
class StoreIdentity:
    """The origin of a store's features.

    Attributes:
        store: The store.
    """

    store: FeatureSource

    @property
    def attributes(self) -> Mapping[str, Any]:
        return self.store.attributes

    @property
    def label(self) -> str:
        """The store's name, else its model with the seed."""
        return store_name(self.store) or f"{self.attributes.get('model')} (seed {self.attributes.get('seed')})"

    @property
    def random_init(self) -> bool:
        return bool(self.attributes.get("random_init", False))

    @property
    def prompt_rule(self) -> str:
        """``own``, ``foreign`` or ``empty``: the text given with each picture."""
        return str(self.attributes.get("prompts", "own"))

    @property
    def pair_noise(self) -> str:
        return str(self.attributes.get("pair_noise", "independent"))

    @property
    def control(self) -> str:
        """``trained``, or the controls that the store is: ``random-init``, ``foreign-prompt``, …"""
        parts = ["random-init"] if self.random_init else []
        parts += [] if self.prompt_rule == "own" else [f"{self.prompt_rule}-prompt"]
        return "-".join(parts) or "trained"

    def difference(self, other: StoreIdentity, *, apart_from: Collection[str]) -> str | None:
        """Describe the first difference of two stores.

        An attribute that one of the stores does not record is not compared.

        Args:
            other: The other store.
            apart_from: Aspects that may differ, of :data:`ASPECTS` and ``data``.

        Returns:
            ``KEY is A and B``; None without a difference.
        """
        for aspect, keys in ASPECTS.items():
            if aspect in apart_from:
                continue
            for key in keys:
                values = [identity.attributes.get(key) for identity in (self, other)]
                if all(key in identity.attributes for identity in (self, other)) and values[0] != values[1]:
                    return f"{key} is {values[0]!r} and {values[1]!r}"
        return None if DATA in apart_from else _different_data(self.store, other.store)


def check_comparable(one: FeatureSource, other: FeatureSource, *, apart_from: Collection[str]) -> None:
    """Refuse two stores that differ in more than the named aspects.

    Raises:
        UserError: With the first difference.
    """
    identities = StoreIdentity(one), StoreIdentity(other)
    difference = identities[0].difference(identities[1], apart_from=apart_from)
    if difference is not None:
        raise UserError(
            f"{identities[0].label} and {identities[1].label} differ in more than {' or '.join(apart_from)}: "
            f"{difference}; extract both with the same settings from the same data."
        )


def check_models(stores: Sequence[FeatureSource]) -> None:
    """Refuse stores that are not features of the same items in different models, each model's weights once.

    Raises:
        UserError: No store, other prompts, the same weights twice, or stores of other data.
    """
    if not stores:
        raise UserError("There is no store to measure; give several, one a model.")
    previous: set[tuple[str, ...]] = set()
    for store in stores:
        identity = StoreIdentity(store)
        if identity.prompt_rule != "own":
            raise UserError(f"The store {identity.label} was not extracted with own prompts; leave it out.")
        weights = tuple(str(store.attributes.get(key)) for key in ("model", "revision", "random_init", "seed"))
        if weights in previous:
            raise UserError(f"The store {identity.label} holds the same weights as one before it; give each once.")
        previous.add(weights)
        check_comparable(stores[0], store, apart_from=("model", "weights", "preparation", "noise"))


def _different_data(one: FeatureSource, other: FeatureSource) -> str | None:
    """Compare the prompts, pictures and given texts of the items that two stores share.

    Texts are compared if both stores have the same prompt rule. Stores that do not record their inputs are compared by
    the fingerprint of their items.
    """
    inputs = [getattr(store, "item_inputs", None) for store in (one, other)]
    if inputs[0] is None or inputs[1] is None:
        values = [store.attributes.get("data_fingerprint") for store in (one, other)]
        return (
            None if None in values or values[0] == values[1] else f"data_fingerprint is {values[0]!r} and {values[1]!r}"
        )
    ids, rows, other_rows = np.intersect1d(
        np.asarray(one.item_ids, dtype=str), np.asarray(other.item_ids, dtype=str), return_indices=True
    )
    if not len(ids):
        return "they share no item"
    columns = {"prompt_id": "the prompt group", "image_digest": "the picture"}
    if one.attributes.get("prompts", "own") == other.attributes.get("prompts", "own"):
        columns["prompt_digest"] = "the prompt"
    for name, label in columns.items():
        differs = inputs[0][name][rows] != inputs[1][name][other_rows]
        differs = differs.any(axis=1) if differs.ndim == 2 else differs
        if differs.any():
            return f"{label} of {int(differs.sum())} items, such as {str(ids[differs][0])!r}"
    return None
