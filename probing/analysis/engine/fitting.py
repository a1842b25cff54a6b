"""The one fitting loop: probes on a site or a set of sites, facet by facet, under a control, kept in a journal."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from probing.analysis.engine.facets import Facet
from probing.analysis.engine.journal import Entry, Journal, journal_settings
from probing.analysis.engine.recipe import Recipe
from probing.analysis.engine.run import Run
from probing.analysis.engine.sites import Curve, read_site
from probing.analysis.engine.source import Features, FeatureSource, flatten
from probing.analysis.engine.store_identity import StoreIdentity
from probing.cluster import map_on_ray
from probing.progress import Progress
from probing.statistics import outcomes

_CACHE_BYTES = 2 * 2**30

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Job(NamedTuple):
    """Features to fit a probe on.

    Attributes:
        name: Identifies the features within the store, such as ``image/mean/0.005/7``.
        read: Returns the features of all items, (item, …), in memory or on disk.
        score: Returns an array to keep beside the fit, given the fitted probe; None keeps nothing.
    """

    name: str
    read: Callable[[], Features]
    score: Callable[[Any], np.ndarray] | None = None


@dataclass(frozen=True)
class Fit:
    """A fitted probe's measurement on one facet.

    Attributes:
        cell: Name of the cell: control, facet and features.
        cv_accuracy: Out-of-fold accuracy on training pairs: the only number that selects anything.
        temperature: Divides margins into log odds; NaN if the probe has no out-of-fold margins.
        alpha: L2 strength; NaN if the probe has none.
        scaling: Scaling of the features; None for rewards that were not fitted.
        compression: See :meth:`probing.analysis.engine.Recipe.compression`.
        channels: Parameters of a linear head.
        choices: Choices of the test pairs.
        margins: Margins of the test pairs, for each of the probe's seeds.
        train_margins: Out-of-fold margins of the training pairs; NaN if the probe has none.
        scored: Result of the job's ``score``; empty without one.
        shuffled: Margins of the test pairs by refits to shuffled training choices; no column without shuffles.
    """

    cell: str
    cv_accuracy: float
    temperature: float
    alpha: float
    scaling: str | None
    compression: float
    channels: int
    choices: Float[np.ndarray, " pair"]
    margins: Float[np.ndarray, "pair seed"]
    train_margins: Float[np.ndarray, " training"]
    scored: np.ndarray
    shuffled: Float[np.ndarray, "pair shuffle"]

    @property
    def seed_outcomes(self) -> Float[np.ndarray, "seed pair"]:
        """1 right, 0 wrong, 0.5 a predicted tie, NaN a tie of the annotators; for each of the probe's seeds."""
        return np.stack([outcomes(margins, self.choices) for margins in self.margins.T])

    @property
    def outcomes(self) -> Float[np.ndarray, " pair"]:
        """Mean over the probe's seeds: the accuracy of a probe trained once."""
        return self.seed_outcomes.mean(axis=0)

    @property
    def log_odds(self) -> Float[np.ndarray, " pair"]:
        """Margins in nats if a temperature is known, else in units of their own root mean square."""
        margins = self.margins.mean(axis=1)
        if np.isfinite(self.temperature):
            return margins / self.temperature
        scale = float(np.sqrt(np.mean(margins**2)))
        return margins / scale if scale > 0 else margins


class Fitter:
    """Fits probes on facets of one store; a fit in the journal is not repeated.

    Args:
        store: Features.
        facets: Pairs of each facet, as rows of the store.
        recipe: The probe.
        run: Workers and journal; its seed is the seed of shuffles.
        shuffles: Refits of each fitted probe to shuffled training choices.
        control: Name of the control; None derives it from the store.
        bar: Advanced by one a fit.
    """

    def __init__(
        self,
        store: FeatureSource,
        facets: Sequence[Facet],
        recipe: Recipe,
        run: Run,
        *,
        shuffles: int = 0,
        control: str | None = None,
        bar: Progress | None = None,
    ) -> None:
        self.facets, self._recipe, self._run, self._bar = list(facets), recipe, run, bar
        self.control = StoreIdentity(store).control if control is None else control
        self._shuffles = shuffles
        self._journals = {
            facet.name: Journal(
                run.journal, {} if run.journal is None else journal_settings(store, _pairs_of(facet), recipe)
            )
            for facet in self.facets
        }

    @property
    def facet(self) -> Facet:
        """The facet of a fitter that has only one."""
        (facet,) = self.facets
        return facet

    def fit(self, jobs: Sequence[Job]) -> list[list[Fit]]:
        """Fit every job on every facet; features are read once a job.

        Returns:
            For each job, one fit a facet.
        """
        fits = []
        on_ray = self._run.engine == "ray"
        for of_job in map_on_ray(self._fit, jobs) if on_ray else in_order(self._fit, jobs, self._run.workers):
            fits.append(of_job)
            if self._bar is not None:
                self._bar.update(len(of_job))
        return fits

    def __getstate__(self) -> dict[str, Any]:
        """Leave the bar out, which belongs to this process."""
        return {**self.__dict__, "_bar": None}

    def fit_facet(self, jobs: Sequence[Job]) -> list[Fit]:
        """Fit every job on the one facet of this fitter."""
        return [fit for (fit,) in self.fit(jobs)]

    def _fit(self, job: Job) -> list[Fit]:
        features: Features | None = None
        fits = []
        for facet in self.facets:
            cell = cell_name(self.control, facet.name, job.name)
            journal = self._journals[facet.name]
            # Entries of their own: an experiment without shuffles reads the fits of one with them.
            of_shuffles = f"{cell}|{self._shuffles} shuffles, seed {self._run.seed}"
            entry, shuffled = journal.read(cell), journal.read(of_shuffles) if self._shuffles else _no_shuffles(facet)
            if entry is None or shuffled is None:
                features = job.read() if features is None else features
                entry, shuffled = self._measure(cell, job, facet, features)
                journal.write(cell, entry)
                if self._shuffles:
                    journal.write(of_shuffles, shuffled)
            recorded: dict[str, Any] = {**entry.values, **entry.arrays, **shuffled.arrays}
            fits.append(Fit(cell=cell, choices=facet.test.choices, **recorded))
        return fits

    def _measure(self, cell: str, job: Job, facet: Facet, features: Features) -> tuple[Entry, Entry]:
        """Fit a probe; return what is recorded of it, and of its refits to shuffled choices."""
        labels = self._recipe.labels_of(facet.train)
        probe = self._recipe.fit(features, facet.train)
        # The stream depends on the cell's name alone, so neither order nor workers change it.
        rng = np.random.default_rng([self._run.seed, zlib.crc32(cell.encode())])
        shuffled = _no_shuffles(facet)
        if self._shuffles:
            margins = self._recipe.shuffled_margins(probe, features, facet.train, facet.test, self._shuffles, rng)
            shuffled = Entry({}, {"shuffled": margins})
        # A network has out-of-fold margins of its validation part only, and cannot be compared pair by pair.
        complete = not np.isnan(probe.cv_margins_).any()
        values = {
            "cv_accuracy": float(probe.cv_accuracy_),
            "temperature": float(self._recipe.temperature(probe, labels)),
            "alpha": float(getattr(probe, "alpha_", np.nan)),
            "scaling": str(getattr(probe, "scaling_", "standard")),
            "compression": float(self._recipe.compression(features, facet.train, labels)),
            "channels": int(np.prod(features.shape[1:])),
        }
        arrays = {
            "margins": self._recipe.margins(probe, features, facet.test),
            "train_margins": probe.cv_margins_ if complete else np.full(len(labels), np.nan),
            "scored": np.empty(0) if job.score is None else job.score(probe),
        }
        return Entry(values, arrays), shuffled


class CurveReader:
    """Reads the blocks of a curve and caches as many as a fixed amount of memory allows.

    Args:
        store: Features.
        curve: The curve.
    """

    def __init__(self, store: FeatureSource, curve: Curve) -> None:
        def read(block: int) -> Float[np.ndarray, "item channel"]:
            return flatten(read_site(store, curve.site(block)))

        self.curve, self.num_blocks = curve, store.num_blocks
        first = read(curve.blocks[0])
        self.width = first.shape[1]
        self.read = lru_cache(max(2, _CACHE_BYTES // max(1, first.nbytes)))(read)

    def concatenate(self, blocks: Sequence[int]) -> Float[np.ndarray, "item channel"]:
        """Concatenate blocks along channels."""
        return np.concatenate([self.read(block) for block in blocks], axis=1)


def _no_shuffles(facet: Facet) -> Entry:
    return Entry({}, {"shuffled": np.empty((len(facet.test.choices), 0))})


def cell_name(control: str, facet: str, features: str) -> str:
    """Name a cell: ``trained/quality/image/mean/0.005/7``."""
    return f"{control}/{facet}/{features}"


def in_order(function: Callable[[_In], _Out], inputs: Iterable[_In], workers: int) -> Iterator[_Out]:
    """Map in order, by threads if there are several workers."""
    if workers == 1:
        yield from map(function, inputs)
        return
    # NumPy releases the interpreter's lock while it multiplies; its own threads would only compete for the cores.
    with threadpool_limits(1), ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(function, inputs)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _pairs_of(facet: Facet) -> pd.DataFrame:
    return pd.concat([facet.train.table, facet.test.table], ignore_index=True)
