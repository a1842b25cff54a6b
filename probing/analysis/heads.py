"""Heads on several blocks of one series, each chosen step of which looks at training pairs alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from probing.analysis.fits import Blocks, Fit, Fitter, Job, training_rows
from probing.analysis.mix import fit_mix, mixed_features
from probing.analysis.stage_runs import StageRuns
from probing.analysis.width import REDUCED, reduce_width, widen


@dataclass
class Head:
    """A head and its measurement.

    Attributes:
        kind: ``single``, ``pair``, ``subset``, ``greedy`` or ``mix``.
        form: ``full``, ``pca``, ``random`` or ``widened``.
        blocks: That it reads; of a greedy head in the order in which they were added.
        fit: Its measurement.
        weights: Of the blocks of a mix.
        chosen: Whether it is the best of its kind by training pairs.
    """

    kind: str
    form: str
    blocks: tuple[int, ...]
    fit: Fit
    weights: np.ndarray | None = None
    chosen: bool = False


@dataclass(frozen=True)
class Heads:
    """All heads of one series and facet.

    Attributes:
        heads: In the order of measurement.
        best: The chosen single block.
        standing: The block that stands for each stage, its best.
    """

    heads: list[Head]
    best: int
    standing: tuple[int, ...]

    def of(self, kind: str, form: str = "full") -> list[Head]:
        return [head for head in self.heads if head.kind == kind and head.form == form]

    def single(self, block: int) -> Fit:
        return next(head.fit for head in self.of("single") if head.blocks == (block,))

    def widened(self, blocks: int) -> Fit:
        """Return the fit of the best block at the width of so many."""
        width = blocks * self.single(self.best).channels
        return next(head.fit for head in self.of("single", "widened") if head.fit.channels == width)


def count_heads(blocks: int, stages: int, largest: int) -> int:
    """Say how many fits :func:`measure_heads` asks for, at most."""
    grown = sum(blocks - size for size in range(2, min(largest, blocks)))
    return blocks + blocks * (blocks - 1) // 2 + 2**stages - 1 - stages + grown + 1 + 3 * (len(REDUCED) + 1)


def measure_heads(blocks: Blocks, fitter: Fitter, runs: StageRuns, *, largest: int, seed: int) -> Heads:
    """Fit every head.

    Args:
        blocks: Reads the series.
        fitter: Fits, on one facet.
        runs: Stages of the series.
        largest: Blocks of the greedy head at most.
        seed: Of random projections and random features.
    """
    fit_sets = _Sets(blocks, fitter)
    there = blocks.series.blocks
    heads = fit_sets.heads("single", [(block,) for block in there])
    best = _choose(heads).blocks[0]
    pairs = fit_sets.heads("pair", list(itertools.combinations(there, 2)))
    chosen_pair = _choose(pairs)
    accuracy = {head.blocks[0]: head.fit.cv_accuracy for head in heads}
    standing = tuple(max(run, key=lambda block: accuracy[block]) for run in runs.blocks)
    subsets = fit_sets.heads(
        "subset", [chosen for size in range(2, len(standing) + 1) for chosen in itertools.combinations(standing, size)]
    )
    if subsets:
        _choose(subsets)
    grown = _grow(fit_sets, heads, best, min(largest, len(there)))
    heads += [*pairs, *subsets, *grown, _mixed(blocks, fitter)]
    sets = {chosen_pair.blocks: "pair"}
    if len(members := _choose(grown).blocks) > 1:
        sets[members] = "greedy"
    if len(standing) > 1:
        sets[standing] = "subset"
    return Heads([*heads, *_matched(blocks, fitter, sets, best, seed)], best, standing)


class _Sets:
    """Fits blocks side by side; a set that comes twice is fitted once."""

    def __init__(self, blocks: Blocks, fitter: Fitter) -> None:
        self.blocks, self._fitter = blocks, fitter
        self._known: dict[tuple[int, ...], Fit] = {}

    def heads(self, kind: str, sets: Sequence[tuple[int, ...]]) -> list[Head]:
        ordered = [tuple(sorted(members)) for members in sets]
        new = [members for members in dict.fromkeys(ordered) if members not in self._known]
        jobs = [_job(self.blocks, members, "full", partial(self.blocks.concatenate, members)) for members in new]
        self._known |= dict(zip(new, self._fitter.fit(jobs), strict=True))
        return [Head(kind, "full", s, self._known[o]) for s, o in zip(sets, ordered, strict=True)]


def _job(blocks: Blocks, members: Sequence[int], form: str, read: Callable[[], np.ndarray]) -> Job:
    return Job("/".join(map(str, (*blocks.series[:3], "+".join(map(str, members)), form))), read)


def _choose(heads: Sequence[Head]) -> Head:
    """Mark the best by training pairs, the first of equals."""
    head = heads[int(np.argmax([head.fit.cv_accuracy for head in heads]))]
    head.chosen = True
    return head


def _grow(fit_sets: _Sets, singles: Sequence[Head], best: int, largest: int) -> list[Head]:
    """Add the block that raises out-of-fold accuracy most, one at a time, beginning with the best single block."""
    there = fit_sets.blocks.series.blocks
    steps = [Head("greedy", "full", (best,), next(head.fit for head in singles if head.blocks == (best,)))]
    while len(members := steps[-1].blocks) < largest:
        tried = fit_sets.heads("greedy", [(*members, block) for block in there if block not in members])
        steps.append(max(tried, key=lambda head: head.fit.cv_accuracy))
    return steps


def _mixed(blocks: Blocks, fitter: Fitter) -> Head:
    there = blocks.series.blocks
    weights: list[np.ndarray] = []

    def read() -> np.ndarray:
        mix = fit_mix(blocks.read, there, fitter.facet.train)
        weights.append(mix.weights)
        return mixed_features(mix, blocks.read, there)

    job = _job(blocks, there, "mix", read)._replace(score=lambda _: weights[-1])
    (fit,) = fitter.fit([job])
    return Head("mix", "full", tuple(there), fit, weights=fit.scored)


def _matched(blocks: Blocks, fitter: Fitter, sets: dict[tuple[int, ...], str], best: int, seed: int) -> list[Head]:
    """Fit heads of matched size: sets at one block's width, and the best block at each set's."""
    rows, width = training_rows(fitter.facet), blocks.width

    def reduced(members: Sequence[int], how: str) -> np.ndarray:
        return reduce_width(blocks.concatenate(members), rows, width, how=how, seed=seed)

    def widened(size: int) -> np.ndarray:
        return widen(blocks.read(best), rows, width * size, seed=seed)

    made = []
    for members, kind in sets.items():
        for how in REDUCED:
            job = _job(blocks, members, f"{how}-{seed}", partial(reduced, members, how))
            made.append(Head(kind, how, members, fitter.fit([job])[0]))
    for size in sorted({len(members) for members in sets}):
        job = _job(blocks, (best,), f"widened{size}-{seed}", partial(widened, size))
        made.append(Head("single", "widened", (best,), fitter.fit([job])[0]))
    return made
