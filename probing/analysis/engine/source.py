"""What experiments read from a feature store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeAlias, overload, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from probing.errors import UserError
from probing.probes import DiskRows


@runtime_checkable
class FeatureSource(Protocol):
    """The reading side of :class:`probing.features.FeatureStore`; any object with these members works."""

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


@runtime_checkable
class ByRun(Protocol):
    """A feature source that also reads a block a part at a time."""

    def read_by_run(
        self, stream: str, reduction: str, sigma: float, block: int
    ) -> Iterator[Float[np.ndarray, "row ..."]]: ...


Features: TypeAlias = Float[np.ndarray, "item ..."] | DiskRows
"""Features of all items, in memory or on disk."""


def digest_of(store: FeatureSource) -> str:
    """Return the digest of a store's content; a name or path does not identify features.

    Raises:
        UserError: The store has no digest.
    """
    digest = str(store.digest or "")
    if not digest:
        raise UserError(f"{store_name(store)} has no digest, so results cannot be bound to it; extract it again.")
    return digest


def store_name(store: FeatureSource) -> str | None:
    """Return the last part of a store's path; None without a path.

    Store the name, not the path: tables are published. Bytes that are not UTF-8 are escaped, since Parquet holds
    UTF-8 only.
    """
    path = getattr(store, "path", None)
    return None if path is None else os.fsencode(path.name).decode("utf-8", "backslashreplace")


def read_latent_reduction(store: FeatureSource, reduction: str) -> Float[np.ndarray, "item ..."]:
    """Read the pooled VAE latents under a reduction.

    Raises:
        UserError: A written item has a NaN or an infinity there.
    """
    return require_finite(store, store.read_latents(reduction), f"latents/{reduction}")


@overload
def flatten(features: Float[np.ndarray, "item ..."]) -> Float[np.ndarray, "item channel"]: ...
@overload
def flatten(features: DiskRows) -> DiskRows: ...
def flatten(features: Features) -> Features:
    """Concatenate tokens along channels."""
    if isinstance(features, DiskRows):
        return features.flat()
    return features.reshape(len(features), -1)


def require_finite(
    store: FeatureSource, features: Float[np.ndarray, "item ..."], label: str, rows: slice = slice(None)
) -> np.ndarray:
    """Return features; refuse a NaN or an infinity of a written item.

    Args:
        store: Where they are from.
        features: Of the items in these rows.
        label: Names the features in a message.
        rows: Rows of the store.

    Raises:
        UserError: With the first such item.
    """
    bad = ~np.isfinite(features).reshape(len(features), -1).all(axis=1) & np.asarray(store.written)[rows]
    if bad.any():
        raise UserError(
            f"{store_name(store) or 'The store'} has features that are not finite: {label}, "
            f"item {str(np.asarray(store.item_ids)[rows][bad][0])!r} first, {int(bad.sum()):,} such items; "
            f"extract them again, or leave the site out by --streams, --reductions, --sigmas or --blocks."
        )
    return features
