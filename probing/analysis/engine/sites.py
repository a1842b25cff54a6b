"""Sites: where features are read, and which of a store's sites an experiment reads."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

from probing.analysis.engine.source import ByRun, Features, FeatureSource, require_finite
from probing.errors import UserError
from probing.probes import DiskRows

_Name = TypeVar("_Name", str, float, int)


class Site(NamedTuple):
    """One block's output in one stream, at one noise level, under one reduction."""

    stream: str
    reduction: str
    sigma: float
    block: int

    def __str__(self) -> str:
        return f"{self.stream}/{self.reduction}/{float(self.sigma)!r}/{self.block}"


class Curve(NamedTuple):
    """A site without its block, and the blocks at hand."""

    stream: str
    reduction: str
    sigma: float
    blocks: tuple[int, ...]

    def site(self, block: int) -> Site:
        return Site(self.stream, self.reduction, self.sigma, block)

    def block_at(self, depth: float, num_blocks: int) -> int:
        """Return the block whose output lies nearest to a relative depth; of two, the shallower."""
        return min(self.blocks, key=lambda block: abs((block + 1) / num_blocks - depth))

    def __str__(self) -> str:
        return f"{self.stream}/{self.reduction}/{float(self.sigma)!r}"


@dataclass(frozen=True)
class Sites:
    """A selection of sites.

    Attributes:
        streams: Token streams, such as image,text; default: all of the store.
        reductions: Reductions of tokens, such as mean; default: all of the store.
        sigmas: Noise levels in [0, 1]; default: all of the store.
        blocks: 0-indexed blocks; default: all of the store.
    """

    streams: tuple[str, ...] | None = None
    reductions: tuple[str, ...] | None = None
    sigmas: tuple[float, ...] | None = None
    blocks: tuple[int, ...] | None = None

    def of(self, store: FeatureSource) -> list[Site]:
        """List the selected sites of a store; a stream may lack a block that another stream has.

        Raises:
            UserError: The store lacks a selected name, or the selection is empty.
        """
        arrays = store.arrays()
        streams = choose("stream", self.streams, _distinct(stream for stream, _ in arrays))
        reductions = choose("reduction", self.reductions, _distinct(reduction for _, reduction in arrays))
        sigmas = choose("sigma", self.sigmas, store.sigmas)
        blocks = choose("block", self.blocks, store.blocks)
        sites = [
            Site(stream, reduction, sigma, block)
            for stream, reduction in arrays
            if stream in streams and reduction in reductions
            for sigma in sigmas
            for block in store.blocks_of(stream)
            if block in blocks
        ]
        if not sites:
            available = ", ".join("/".join(names) for names in arrays)
            raise UserError(f"The selected streams, reductions and blocks leave nothing of {available}; select more.")
        return sites

    def curves_of(self, store: FeatureSource) -> list[Curve]:
        """List the selected curves of a store.

        Raises:
            UserError: As :meth:`of`.
        """
        blocks: dict[tuple[str, str, float], list[int]] = {}
        for site in self.of(store):
            blocks.setdefault(site[:3], []).append(site.block)
        return [Curve(*key, tuple(numbers)) for key, numbers in blocks.items()]

    def latent_reductions_of(self, store: FeatureSource) -> list[str]:
        """List the store's reductions of pooled latents that are selected."""
        return [name for name in store.latent_reductions() if self.reductions is None or name in self.reductions]


ALL = Sites()
FIT_MEMORY = 5.3
"""Memory of a fit, in sizes of the features that it reads (benchmarks/fitting_memory.py)."""


def read_site(store: FeatureSource, site: Site) -> Float[np.ndarray, "item ..."]:
    """Read the features of one site.

    Raises:
        UserError: A written item has a NaN or an infinity there.
    """
    label = f"{site.stream}/{site.reduction} at σ = {site.sigma:g}, block {site.block}"
    return require_finite(store, store.read(*site), label)


def read_for_fits(store: FeatureSource, site: Site, *, most_bytes: float, folder: Path | None = None) -> Features:
    """Read the features of one site, onto the disk if a fit of them would need too much memory.

    Args:
        store: Features.
        site: The site.
        most_bytes: Largest memory of a fit.
        folder: Where features on disk lie; the system's folder of temporary files if None.

    Raises:
        UserError: As :func:`read_site`.
    """
    if not isinstance(store, ByRun):
        return read_site(store, site)
    label = f"{site.stream}/{site.reduction} at σ = {site.sigma:g}, block {site.block}"
    runs = store.read_by_run(*site)
    first = next(runs)
    items = len(store.item_ids)
    if FIT_MEMORY * items * first[0].nbytes <= most_bytes:
        return read_site(store, site)

    def checked() -> Iterator[np.ndarray]:
        row = 0
        for values in chain([first], runs):
            rows = slice(row, row + len(values))
            yield require_finite(store, values, label, rows)
            row = rows.stop

    return DiskRows.write(checked(), folder)


def choose(kind: str, selected: Sequence[_Name] | None, available: Collection[_Name]) -> list[_Name]:
    """Return the selected names in the order of the available ones; all of them for None.

    Raises:
        UserError: A selected name is not available.
    """
    if selected is None:
        return list(available)
    missing = [name for name in selected if name not in available]
    if missing:
        raise UserError(
            f"The store has no {kind} {', '.join(map(str, missing))}; it has {', '.join(map(str, available))}."
        )
    return [name for name in available if name in selected]


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
