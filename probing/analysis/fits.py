"""Any features of a store, fitted and scored once: what the experiments beyond the grid of cells share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from probing.analysis.journal import Journal, Measured, journal_settings
from probing.analysis.pairs import Facet
from probing.analysis.recipe import Recipe
from probing.analysis.results import provenance
from probing.analysis.source import FeatureSource, Place, places, read_site
from probing.errors import UserError
from probing.progress import Progress
from probing.statistics import cluster_bootstrap, outcomes, paired_difference

RESAMPLES = 2000
_KEPT_BYTES = 2 * 2**30

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Job(NamedTuple):
    """What to fit.

    Attributes:
        name: Unlike any other of the facet and store.
        read: Gives the features of all items, (item, …).
        score: Given the fitted probe, anything else to keep of it; None keeps nothing.
    """

    name: str
    read: Callable[[], Float[np.ndarray, "item ..."]]
    score: Callable[[Any], np.ndarray] | None = None


@dataclass(frozen=True)
class Fit:
    """A probe's measurement on one facet.

    Attributes:
        cv_accuracy: Out of fold, on training pairs: the only number that anything is chosen by.
        temperature: Divides margins into log odds; NaN where the probe has no out-of-fold margins.
        channels: Parameters of a linear head.
        choices: Of the test pairs.
        margins: Of the test pairs, for each of the probe's seeds.
        train_margins: Out of fold, of the training pairs; NaN where the probe has none.
        scored: What the job's ``score`` gave; empty if nothing.
    """

    cv_accuracy: float
    temperature: float
    channels: int
    choices: Float[np.ndarray, " pair"]
    margins: Float[np.ndarray, "pair seed"]
    train_margins: Float[np.ndarray, " training"]
    scored: np.ndarray

    @property
    def outcomes(self) -> Float[np.ndarray, " pair"]:
        """1 right, 0 wrong, 0.5 a predicted tie, NaN a tie of the annotators; a mean over the probe's seeds."""
        return np.mean([outcomes(margins, self.choices) for margins in self.margins.T], axis=0)

    @property
    def log_odds(self) -> Float[np.ndarray, " pair"]:
        """Margins in nats where a temperature is known, else in units of their own root mean square."""
        margins = self.margins.mean(axis=1)
        if np.isfinite(self.temperature):
            return margins / self.temperature
        scale = float(np.sqrt(np.mean(margins**2)))
        return margins / scale if scale > 0 else margins


class Fitter:
    """Fits probes on one facet of one store; what the journal has is not fitted again.

    Args:
        store: Features.
        facet: Its pairs.
        recipe: What is fitted.
        journal: Folder that keeps what is measured; None keeps nothing.
        workers: Jobs done at once.
        bar: Advanced by one a job.
    """

    def __init__(
        self,
        store: FeatureSource,
        facet: Facet,
        recipe: Recipe,
        *,
        journal: Path | None = None,
        workers: int = 1,
        bar: Progress | None = None,
    ) -> None:
        if workers < 1:
            raise UserError(f"Got {workers} workers, expected 1 or more.")
        self.facet, self._recipe, self._workers, self._bar = facet, recipe, workers, bar
        pairs = pd.concat([facet.train.table, facet.test.table], ignore_index=True)
        self._journal = Journal(journal, {} if journal is None else journal_settings(store, pairs, recipe))

    def fit(self, jobs: Sequence[Job]) -> list[Fit]:
        """Fit every job, in order."""
        found = []
        for fit in in_order(self._one, jobs, self._workers):
            found.append(fit)
            if self._bar is not None:
                self._bar.update()
        return found

    def _one(self, job: Job) -> Fit:
        known = self._journal.find(self.facet.name, job.name)
        if known is None:
            known = self._measure(job)
            self._journal.keep((self.facet.name, job.name), known)
        test, training, scored = known
        return Fit(
            **test.row,
            choices=self.facet.test.choices,
            margins=test.margins,
            train_margins=training.margins,
            scored=scored.margins,
        )

    def _measure(self, job: Job) -> list[Measured]:
        features = job.read()
        train, test = self.facet.train, self.facet.test
        probe = self._recipe.fit(features, train)
        out_of_fold = None if np.isnan(probe.cv_margins_).any() else probe.cv_margins_
        row = {
            "cv_accuracy": float(probe.cv_accuracy_),
            "temperature": float(self._recipe.temperature(probe, self._recipe.labels_of(train))),
            "channels": int(np.prod(features.shape[1:])),
        }
        return [
            Measured(row, self._recipe.margins(probe, features, test)),
            Measured({}, np.full(len(train.choices), np.nan) if out_of_fold is None else out_of_fold),
            Measured({}, np.empty(0) if job.score is None else job.score(probe)),
        ]


class Series(NamedTuple):
    """One curve: every block of a stream under one reduction and noise level."""

    stream: str
    reduction: str
    sigma: float
    blocks: tuple[int, ...]


def series_of(store: FeatureSource, **asked: Any) -> list[Series]:
    """List the curves asked for; arguments are those of :func:`probing.analysis.source.places`.

    Raises:
        UserError: As there.
    """
    found: dict[tuple[str, str, float], list[int]] = {}
    for place in places(store, **asked):
        found.setdefault(place[:3], []).append(place.block)
    return [Series(*key, tuple(blocks)) for key, blocks in found.items()]


class Blocks:
    """Reads the blocks of a series, and keeps as many as a fixed budget of memory allows.

    Args:
        store: Features.
        series: Which of them.
    """

    def __init__(self, store: FeatureSource, series: Series) -> None:
        def read(block: int) -> Float[np.ndarray, "item channel"]:
            features = read_site(store, Place(*series[:3], block))
            return features.reshape(len(features), -1)

        self.series, self.num_blocks = series, store.num_blocks
        first = read(series.blocks[0])
        self.width = first.shape[1]
        self.read = lru_cache(max(2, _KEPT_BYTES // max(1, first.nbytes)))(read)

    def concatenate(self, blocks: Sequence[int]) -> Float[np.ndarray, "item channel"]:
        """Put blocks side by side."""
        return np.concatenate([self.read(block) for block in blocks], axis=1)


def training_rows(facet: Facet) -> np.ndarray:
    """Rows in the store of a facet's training items: all that an unsupervised map may be fitted to."""
    return np.unique(np.concatenate([facet.train.first, facet.train.second]))


def accuracies(columns: Float[np.ndarray, "pair cell"], prompts: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Accuracy of each column with its 95% interval over prompts, as columns of a table."""
    found = cluster_bootstrap(columns, prompts, resamples=RESAMPLES, seed=seed)
    return {"value": found.estimate, "ci_low": found.low, "ci_high": found.high}


def gains(
    columns: Float[np.ndarray, "pair cell"], reference: np.ndarray, prompts: np.ndarray, seed: int, name: str = "gain"
) -> dict[str, np.ndarray]:
    """Paired difference of each column to a reference (one column, or one each), as columns of a table."""
    against = np.broadcast_to(reference if reference.ndim == 2 else reference[:, None], columns.shape)
    found = paired_difference(columns, against, prompts, resamples=RESAMPLES, seed=seed)
    return {
        name: found.estimate,
        f"{name}_low": found.low,
        f"{name}_high": found.high,
        f"{name}_p_value": found.p_value,
    }


def common_columns(store: FeatureSource, facet: Facet, recipe: Recipe, seed: int) -> dict[str, Any]:
    """What every row of a facet's measurements says of where it comes from."""
    untied = facet.test.choices != 0.5
    return {
        **provenance(store),
        "split": "test",
        "facet": facet.name,
        "probe": recipe.probe,
        "seed": seed,
        "metric": "accuracy",
        "n_pairs": int(untied.sum()),
        "n_prompts": len(np.unique(facet.test.prompts[untied])),
        "n_train_pairs": len(facet.train.choices),
        "ceiling": facet.test.ceiling,
    }


def points(value: float, low: float, high: float) -> str:
    """Say a difference of accuracies with its interval, in percentage points."""
    return f"{100 * value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


def in_order(work: Callable[[_In], _Out], given: Iterable[_In], workers: int) -> Iterator[_Out]:
    """Map, by threads where there are several workers, in order."""
    if workers == 1:
        yield from map(work, given)
        return
    # NumPy leaves the interpreter's lock while it multiplies; its own threads would only contend for the cores.
    with threadpool_limits(1), ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(work, given)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
