"""What the experiments ask of a feature store, and which of its cells were asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from jaxtyping import Bool, Float

from probing.errors import UserError

_Name = TypeVar("_Name", str, float, int)


class FeatureSource(Protocol):
    """The reading side of :class:`probing.features.FeatureStore`; anything with it will do."""

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
