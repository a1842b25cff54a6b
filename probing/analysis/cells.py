"""One probe for each cell: facet × stream × reduction × sigma × block."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from probing.analysis.fits import in_order
from probing.analysis.journal import Journal, Measured, journal_settings
from probing.analysis.pairs import Facet, facets_of
from probing.analysis.recipe import LOGISTIC, Recipe
from probing.analysis.results import COLUMNS, KEYS, CellResults, provenance
from probing.analysis.source import FeatureSource, Place, choose, places, read_latent_site, read_site
from probing.errors import UserError
from probing.progress import progress as show_progress
from probing.statistics import cluster_bootstrap, outcomes

CONTROLS = ("trained", "shuffled")
LATENTS = "latents"
RESAMPLES = 2000

_Reading = tuple[dict[str, Any], Callable[[], Float[np.ndarray, "item ..."]]]
"""Columns that name a place, and the function that reads its features."""


def fit_cells(
    store: FeatureSource,
    pairs: pd.DataFrame,
    *,
    streams: Sequence[str] | None = None,
    reductions: Sequence[str] | None = None,
    sigmas: Sequence[float] | None = None,
    blocks: Sequence[int] | None = None,
    facets: Sequence[str] | None = None,
    control: str = "trained",
    recipe: Recipe = LOGISTIC,
    seed: int = 0,
    workers: int = 1,
    journal: Path | None = None,
    progress: bool = True,
) -> CellResults:
    """Fit one probe for each cell on the pairs of split ``train`` and score it once on those of ``test``.

    Args:
        store: Features.
        pairs: pair_id, prompt_id, first, second, choice, split, facet; optionally ``probability`` of the annotators
            choosing the first, which gives the ceiling.
        streams: Which streams; all if None. Likewise the next four.
        reductions: Which reductions.
        sigmas: Which noise levels.
        blocks: Which blocks; a stream without one of them is not asked for it.
        facets: Which facets.
        control: ``trained``, or ``shuffled``: training choices are permuted among the training pairs of each cell,
            their sides having been drawn first (else nothing would be shuffled where the chosen item always comes
            first). Test choices stay true. A store of fresh weights is the control ``random-init`` by itself.
        recipe: What is fitted.
        seed: Of the shuffles and of the bootstrap.
        workers: Places measured at once, each by one thread of linear algebra where there are several.
        journal: Folder that keeps what is measured, so that a killed run goes on; the caller takes it away.
        progress: Whether to show a progress bar, on a terminal.

    Raises:
        UserError: Prompts on both sides of the split, items that are missing or unwritten, too few pairs, or cells
            that the store does not have.
    """
    if control not in CONTROLS:
        raise UserError(f"Unknown control {control!r}; known are {', '.join(CONTROLS)}.")
    asked = places(store, streams=streams, reductions=reductions, sigmas=sigmas, blocks=blocks)
    named = _control_name(store, control)

    def readings() -> Iterable[_Reading]:
        for place in asked:
            depth = (place.block + 1) / store.num_blocks
            yield {**place._asdict(), "depth": depth}, partial(read_site, store, place)

    grid = _Grid(store, pairs, facets, named, control == "shuffled", recipe, seed)
    return grid.run(list(readings()), workers, journal, progress)


def fit_latents(
    store: FeatureSource,
    pairs: pd.DataFrame,
    *,
    reductions: Sequence[str] | None = None,
    facets: Sequence[str] | None = None,
    recipe: Recipe = LOGISTIC,
    seed: int = 0,
    workers: int = 1,
    journal: Path | None = None,
    progress: bool = True,
) -> CellResults:
    """Fit the control without a transformer: probes on the clean VAE latents, reduced as the features are.

    Args:
        store: Features; its latents are the same whatever the transformer's weights.
        pairs: As for :func:`fit_cells`.
        reductions: Which reductions of the latents; all if None.
        facets: Which facets.
        recipe: What is fitted.
        seed: Of the bootstrap.
        workers: As for :func:`fit_cells`.
        journal: As for :func:`fit_cells`.
        progress: Whether to show a progress bar, on a terminal.

    Raises:
        UserError: As :func:`fit_cells`.
    """
    names = choose("reduction of latents", reductions, store.latent_reductions())

    def readings() -> Iterable[_Reading]:
        for name in names:
            where = {"stream": LATENTS, "reduction": name, "sigma": float("nan"), "block": pd.NA, "depth": float("nan")}
            yield where, partial(read_latent_site, store, name)

    return _Grid(store, pairs, facets, LATENTS, False, recipe, seed).run(list(readings()), workers, journal, progress)


class _Grid:
    """Places × facets under one control: measured place by place, so that each feature slice is read once."""

    def __init__(
        self,
        store: FeatureSource,
        pairs: pd.DataFrame,
        facets: Sequence[str] | None,
        control: str,
        shuffle: bool,
        recipe: Recipe,
        seed: int,
    ) -> None:
        self.facets = facets_of(store, pairs, facets)
        self.control, self.shuffle, self.recipe, self.seed = control, shuffle, recipe, seed
        self.provenance = provenance(store)
        self.store, self.pairs = store, pairs

    def run(self, readings: list[_Reading], workers: int, journal: Path | None, progress: bool) -> CellResults:
        if workers < 1:
            raise UserError(f"Got {workers} workers, expected 1 or more.")
        kept = Journal(journal, {} if journal is None else self._settings())
        found: dict[str, list[Measured]] = {facet.name: [] for facet in self.facets}
        total = len(readings) * len(self.facets)
        with show_progress(total, f"probes ({self.control})", "fits", enabled=progress) as bar:
            for cells in in_order(partial(self._place, kept), readings, workers):
                for facet, cell in zip(self.facets, cells, strict=True):
                    found[facet.name].append(cell)
                    bar.update()
        common = {
            **self.provenance,
            "split": "test",
            "probe": self.recipe.probe,
            "control": self.control,
            "seed": self.seed,
        }
        parts = [summarise(facet, found[facet.name], common, self.seed) for facet in self.facets]
        return CellResults(*(pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True)))

    def _settings(self) -> dict[str, Any]:
        return {
            **journal_settings(self.store, self.pairs, self.recipe),
            "facets": [facet.name for facet in self.facets],
            "seed": self.seed if self.shuffle else None,
        }

    def _place(self, kept: Journal, reading: _Reading) -> list[Measured]:
        """Measure every facet at one place, or read what was measured before."""
        where, read = reading
        names = [
            cell_name(self.control, facet.name, where, self.seed if self.shuffle else None) for facet in self.facets
        ]
        known = kept.find(*names)
        if known is None:
            features = read()
            known = [self._cell(name, facet, features) for name, facet in zip(names, self.facets, strict=True)]
            kept.keep(names, known)
        return [Measured({**where, **cell.row}, cell.margins) for cell in known]

    def _cell(self, name: str, facet: Facet, features: Float[np.ndarray, "item ..."]) -> Measured:
        sides, y = None, self.recipe.labels_of(facet.train)
        if self.shuffle:
            sides, y = _shuffled(y, np.random.default_rng([self.seed, zlib.crc32(name.encode())]))
        probe = self.recipe.fit(features, facet.train, sides, y)
        row = {
            "cell": name,
            "alpha": getattr(probe, "alpha_", float("nan")),
            "cv_accuracy": probe.cv_accuracy_,
            "scaling": getattr(probe, "scaling_", "standard"),
            "compression": self.recipe.compression(features, facet.train, y, sides),
            "temperature": self.recipe.temperature(probe, y),
        }
        return Measured(row, self.recipe.margins(probe, features, facet.test))


def summarise(
    facet: Facet, cells: list[Measured], common: dict[str, Any], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Give each cell of a facet its accuracy and interval; all cells share their resamples of prompts."""
    test = facet.test
    names = [cell.row["cell"] for cell in cells]
    # With several seeds a pair's outcome is its mean over them: the accuracy of a probe trained once.
    by_seed = [np.stack([outcomes(margins, test.choices) for margins in cell.margins.T]) for cell in cells]
    matrix = np.stack([seeds.mean(axis=0) for seeds in by_seed], axis=1)
    interval = cluster_bootstrap(matrix, test.prompts, resamples=RESAMPLES, seed=seed)
    untied = test.choices != 0.5
    accuracies = [seeds[:, untied].mean(axis=1) for seeds in by_seed]
    table = pd.DataFrame([cell.row for cell in cells]).assign(
        **common,
        facet=facet.name,
        metric="accuracy",
        value=interval.estimate,
        ci_low=interval.low,
        ci_high=interval.high,
        n_pairs=int(untied.sum()),
        n_prompts=len(np.unique(test.prompts[untied])),
        n_train_pairs=len(facet.train.choices),
        ceiling=test.ceiling,
        probe_seeds=[len(values) for values in accuracies],
        seed_deviation=[float(np.std(v, ddof=1)) if len(v) > 1 else float("nan") for v in accuracies],
    )
    table["block"] = table["block"].astype("Int64")
    margins = np.stack([cell.margins.mean(axis=1) for cell in cells], axis=1)
    keys = test.table[KEYS]
    return (
        table[list(COLUMNS)],
        pd.concat([keys, pd.DataFrame(matrix, columns=names)], axis=1),
        pd.concat([keys, pd.DataFrame(margins, columns=names)], axis=1),
    )


def _shuffled(
    y: Float[np.ndarray, " pair"], rng: np.random.Generator
) -> tuple[Bool[np.ndarray, " pair"], Float[np.ndarray, " pair"]]:
    """Draw which pairs keep their sides, and deal the choices out anew."""
    kept = rng.random(len(y)) < 0.5
    return kept, rng.permutation(np.where(kept, y, 1 - y))


def _control_name(store: FeatureSource, control: str) -> str:
    """Name the control that a store and the asked one make together: ``random-init``, ``foreign-prompt-shuffled``."""
    prompts = store.attributes.get("prompts", "own")
    parts = [
        *(["random-init"] if store.attributes.get("random_init", False) else []),
        *([] if prompts == "own" else [f"{prompts}-prompt"]),
        *([] if control == "trained" else [control]),
    ]
    return "-".join(parts) or "trained"


def cell_name(control: str, facet: str, where: dict[str, Any], seed: int | None) -> str:
    """Name a cell: ``trained/quality/image/mean/0.005/7``; a shuffle adds its seed."""
    if where["stream"] == LATENTS:
        parts = [control, facet, where["reduction"]]
    else:
        place = Place(where["stream"], where["reduction"], where["sigma"], where["block"])
        parts = [control, facet, place.stream, place.reduction, repr(float(place.sigma)), str(place.block)]
    return "/".join(parts) + ("" if seed is None else f"/seed{seed}")
