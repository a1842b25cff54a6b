"""What the experiments ask of a feature store, and which of its cells were asked for."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from jaxtyping import Bool, Float

from probing.errors import UserError

_Name = TypeVar("_Name", str, float, int)


class FeatureSource(Protocol):
    """The reading side of :class:`probing.features.FeatureStore`; anything with it will do."""

    @property
    def digest(self) -> str:
        """Digest of all content: differs where any feature, item or setting differs."""
        ...

    @property
    def item_ids(self) -> np.ndarray: ...
    @property
    def sigmas(self) -> list[float]: ...
    @property
    def blocks(self) -> list[int]: ...
    @property
    def num_blocks(self) -> int: ...
    @property
    def attributes(self) -> Mapping[str, Any]: ...
    @property
    def written(self) -> Bool[np.ndarray, " item"]: ...
    def arrays(self) -> list[tuple[str, str]]: ...
    def blocks_of(self, stream: str) -> list[int]: ...
    def read(self, stream: str, reduction: str, sigma: float, block: int) -> Float[np.ndarray, "item ..."]: ...
    def latent_reductions(self) -> list[str]: ...
    def read_latents(self, reduction: str) -> Float[np.ndarray, "item ..."]: ...


def identity_of(store: FeatureSource) -> str:
    """Identify a store by its content, never by its path or name: a store made again may have other features.

    Raises:
        UserError: The store has no digest.
    """
    digest = str(store.digest or "")
    if not digest:
        raise UserError(f"{name_of(store)} has no digest, so results cannot be bound to it; extract it again.")
    return digest


def name_of(store: FeatureSource) -> str | None:
    """Name a store by the last part of its path; tables are published, and a path would name folders of a machine.

    Bytes of the name that are not UTF-8 are escaped, since Parquet holds UTF-8 only.
    """
    path = getattr(store, "path", None)
    return None if path is None else os.fsencode(path.name).decode("utf-8", "backslashreplace")


def different_inputs(one: FeatureSource, other: FeatureSource) -> str | None:
    """Compare what the items that two stores share were computed from: prompts, pictures, and the words given.

    Words are compared where both stores were given words by one rule. Stores that do not note their inputs are compared
    by the fingerprint of their items.

    Returns:
        What differs first; None if nothing does.
    """
    inputs = [getattr(store, "item_inputs", None) for store in (one, other)]
    if inputs[0] is None or inputs[1] is None:
        found = [store.attributes.get("data_fingerprint") for store in (one, other)]
        return None if None in found or found[0] == found[1] else f"data_fingerprint is {found[0]!r} and {found[1]!r}"
    ids, rows, other_rows = np.intersect1d(
        np.asarray(one.item_ids, dtype=str), np.asarray(other.item_ids, dtype=str), return_indices=True
    )
    if not len(ids):
        return "they share no item"
    same_rule = one.attributes.get("prompts", "own") == other.attributes.get("prompts", "own")
    names = {"prompt_id": "the prompt group", "image_digest": "the picture"}
    names |= {"prompt_digest": "the prompt"} if same_rule else {}
    for name, what in names.items():
        differs = inputs[0][name][rows] != inputs[1][name][other_rows]
        differs = differs.any(axis=1) if differs.ndim == 2 else differs
        if differs.any():
            return f"{what} of {int(differs.sum())} items, such as {str(ids[differs][0])!r}"
    return None


class Place(NamedTuple):
    """Where features are read: one block's output in one stream, at one noise level, under one reduction."""

    stream: str
    reduction: str
    sigma: float
    block: int


def places(
    store: FeatureSource,
    *,
    streams: Sequence[str] | None = None,
    reductions: Sequence[str] | None = None,
    sigmas: Sequence[float] | None = None,
    blocks: Sequence[int] | None = None,
) -> list[Place]:
    """List the places asked for, all of them if nothing is; a stream may lack a block that the other has.

    Raises:
        UserError: Something that the store does not hold, or a choice that leaves nothing.
    """
    arrays = store.arrays()
    asked_streams = choose("stream", streams, _distinct(stream for stream, _ in arrays))
    asked_reductions = choose("reduction", reductions, _distinct(reduction for _, reduction in arrays))
    asked_sigmas = choose("sigma", sigmas, store.sigmas)
    asked_blocks = choose("block", blocks, store.blocks)
    found = [
        Place(stream, reduction, sigma, block)
        for stream, reduction in arrays
        if stream in asked_streams and reduction in asked_reductions
        for sigma in asked_sigmas
        for block in store.blocks_of(stream)
        if block in asked_blocks
    ]
    if not found:
        have = ", ".join("/".join(names) for names in arrays)
        raise UserError(f"The streams, reductions and blocks asked for leave nothing of {have}; ask for less at once.")
    return found


def read_site(store: FeatureSource, place: Place) -> Float[np.ndarray, "item ..."]:
    """Read one place's features, and refuse any that cannot be fitted.

    Raises:
        UserError: A written item has a NaN or an infinity there.
    """
    where = f"{place.stream}/{place.reduction} at σ = {place.sigma:g}, block {place.block}"
    return _finite(store, store.read(*place), where)


def read_latent_site(store: FeatureSource, reduction: str) -> Float[np.ndarray, "item ..."]:
    """Read the pooled latents under a reduction, and refuse any that cannot be fitted.

    Raises:
        UserError: A written item has a NaN or an infinity there.
    """
    return _finite(store, store.read_latents(reduction), f"latents/{reduction}")


def _finite(store: FeatureSource, features: Float[np.ndarray, "item ..."], where: str) -> np.ndarray:
    bad = ~np.isfinite(features).reshape(len(features), -1).all(axis=1) & np.asarray(store.written)
    if bad.any():
        raise UserError(
            f"{name_of(store) or 'The store'} has features that are not finite: {where}, "
            f"item {str(np.asarray(store.item_ids)[bad][0])!r} first, {int(bad.sum()):,} items in all; "
            f"extract them again, or leave the place out by --streams, --reductions, --sigmas or --blocks."
        )
    return features


def choose(what: str, asked: Sequence[_Name] | None, there: Collection[_Name]) -> list[_Name]:
    """Keep what was asked for, in the order in which it is there; all if nothing was asked for.

    Raises:
        UserError: Something that is not there, with what is.
    """
    if asked is None:
        return list(there)
    missing = [name for name in asked if name not in there]
    if missing:
        raise UserError(f"The store has no {what} {', '.join(map(str, missing))}; it has {', '.join(map(str, there))}.")
    return [name for name in there if name in asked]


def _distinct(names) -> list[str]:
    return list(dict.fromkeys(names))
