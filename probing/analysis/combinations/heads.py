"""Heads on several blocks of one curve; every selection uses training pairs only."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from probing.analysis.combinations.mix import fit_mix, mixed_features
from probing.analysis.engine import CurveReader, Fit, Fitter, Job
from probing.analysis.engine.width import REDUCED, reduce_width, widen
from probing.analysis.similarity.stage_runs import StageRuns


@dataclass
class Head:
    """A head and its measurement.

    Attributes:
        kind: ``single``, ``pair``, ``subset``, ``greedy`` or ``mix``.
        form: ``full``, ``pca``, ``random`` or ``widened``.
        blocks: The blocks it reads; for a greedy head in the order in which they were added.
        fit: Its fit.
        weights: Weights of the blocks of a mix.
        chosen: Whether it is the best of its kind by out-of-fold accuracy.
    """

    kind: str
    form: str
    blocks: tuple[int, ...]
    fit: Fit
    weights: np.ndarray | None = None
    chosen: bool = False


@dataclass(frozen=True)
class Heads:
    """All heads of one curve and facet.

    Attributes:
        heads: In the order of measurement.
        best: The best single block by out-of-fold accuracy.
        representative: The best block of each stage by out-of-fold accuracy.
    """

    heads: list[Head]
    best: int
    representative: tuple[int, ...]

    def of(self, kind: str, form: str = "full") -> list[Head]:
        return [head for head in self.heads if head.kind == kind and head.form == form]

    def single(self, block: int) -> Fit:
        return next(head.fit for head in self.of("single") if head.blocks == (block,))

    def better_block(self, pair: Head) -> Fit:
        """Return the fit of the better of a pair's two blocks, by out-of-fold accuracy."""
        return max((self.single(block) for block in pair.blocks), key=lambda fit: fit.cv_accuracy)

    def of_width(self, blocks: int) -> Fit:
        """Return the best block's fit as it is, or widened to that many blocks: the better out of fold.

        So the control of width is never weaker than the block by choice, and a gain over it is no gain of width.
        """
        plain = self.single(self.best)
        width = blocks * plain.channels
        wide = next(head.fit for head in self.of("single", "widened") if head.fit.channels == width)
        return wide if wide.cv_accuracy > plain.cv_accuracy else plain


def count_heads(blocks: int, stages: int, largest: int) -> int:
    """Return the most fits that :func:`measure_heads` makes."""
    grown = sum(blocks - size for size in range(2, min(largest, blocks)))
    return blocks + blocks * (blocks - 1) // 2 + 2**stages - 1 - stages + grown + 1 + 3 * (len(REDUCED) + 1)


def measure_heads(reader: CurveReader, fitter: Fitter, runs: StageRuns, *, largest: int, seed: int) -> Heads:
    """Fit every head.

    Args:
        reader: Reads the curve.
        fitter: Fits probes on one facet.
        runs: Stages of the curve.
        largest: Most blocks of the greedy head.
        seed: Seed of random projections and random features.
    """
    sets = _Sets(reader, fitter)
    blocks = reader.curve.blocks
    heads = sets.heads("single", [(block,) for block in blocks])
    best = _choose(heads).blocks[0]
    pairs = sets.heads("pair", list(itertools.combinations(blocks, 2)))
    best_pair = _choose(pairs)
    accuracy = {head.blocks[0]: head.fit.cv_accuracy for head in heads}
    representative = tuple(max(run, key=lambda block: accuracy[block]) for run in runs.blocks)
    sizes = range(2, len(representative) + 1)
    subsets = sets.heads(
        "subset", [members for size in sizes for members in itertools.combinations(representative, size)]
    )
    if subsets:
        _choose(subsets)
    greedy = _grow(sets, heads, best, min(largest, len(blocks)))
    heads += [*pairs, *subsets, *greedy, _mix(reader, fitter)]
    selected = {best_pair.blocks: "pair"}
    if len(members := _choose(greedy).blocks) > 1:
        selected[members] = "greedy"
    if len(representative) > 1:
        selected[representative] = "subset"
    return Heads([*heads, *_match_widths(reader, fitter, selected, best, seed)], best, representative)


class _Sets:
    """Fits sets of blocks; a repeated set is fitted once."""

    def __init__(self, reader: CurveReader, fitter: Fitter) -> None:
        self.reader, self._fitter = reader, fitter
        self._fits: dict[tuple[int, ...], Fit] = {}

    def heads(self, kind: str, sets: Sequence[tuple[int, ...]]) -> list[Head]:
        ordered = [tuple(sorted(members)) for members in sets]
        new = [members for members in dict.fromkeys(ordered) if members not in self._fits]
        jobs = [_job(self.reader, members, "", partial(self.reader.concatenate, members)) for members in new]
        self._fits |= dict(zip(new, self._fitter.fit_facet(jobs), strict=True))
        return [Head(kind, "full", s, self._fits[o]) for s, o in zip(sets, ordered, strict=True)]


def _job(reader: CurveReader, members: Sequence[int], form: str, read: Callable[[], np.ndarray]) -> Job:
    return Job(f"{reader.curve}/{'+'.join(map(str, members))}" + (f"/{form}" if form else ""), read)


def _choose(heads: Sequence[Head]) -> Head:
    """Mark the head of highest out-of-fold accuracy, the first of equals."""
    head = heads[int(np.argmax([head.fit.cv_accuracy for head in heads]))]
    head.chosen = True
    return head


def _grow(sets: _Sets, singles: Sequence[Head], best: int, largest: int) -> list[Head]:
    """Start with the best single block and add the block that raises out-of-fold accuracy most, one at a time."""
    steps = [Head("greedy", "full", (best,), next(head.fit for head in singles if head.blocks == (best,)))]
    while len(members := steps[-1].blocks) < largest:
        added = [block for block in sets.reader.curve.blocks if block not in members]
        candidates = sets.heads("greedy", [(*members, block) for block in added])
        steps.append(max(candidates, key=lambda head: head.fit.cv_accuracy))
    return steps


def _mix(reader: CurveReader, fitter: Fitter) -> Head:
    blocks = reader.curve.blocks
    weights: list[np.ndarray] = []

    def read() -> np.ndarray:
        mix = fit_mix(reader.read, blocks, fitter.facet.train)
        weights.append(mix.weights)
        return mixed_features(mix, reader.read, blocks)

    job = _job(reader, blocks, "mix", read)._replace(score=lambda _: weights[-1])
    (fit,) = fitter.fit_facet([job])
    return Head("mix", "full", blocks, fit, weights=fit.scored)


def _match_widths(
    reader: CurveReader, fitter: Fitter, sets: dict[tuple[int, ...], str], best: int, seed: int
) -> list[Head]:
    """Fit the sets at one block's width, and the best block at each set's width."""
    rows, width = fitter.facet.training_rows, reader.width

    def reduced(members: Sequence[int], how: str) -> np.ndarray:
        return reduce_width(reader.concatenate(members), rows, width, how=how, seed=seed)

    def widened(size: int) -> np.ndarray:
        return widen(reader.read(best), rows, width * size, seed=seed)

    heads = []
    for members, kind in sets.items():
        for how in REDUCED:
            (fit,) = fitter.fit_facet([_job(reader, members, f"{how}-{seed}", partial(reduced, members, how))])
            heads.append(Head(kind, how, members, fit))
    for size in sorted({len(members) for members in sets}):
        (fit,) = fitter.fit_facet([_job(reader, (best,), f"widened{size}-{seed}", partial(widened, size))])
        heads.append(Head("single", "widened", (best,), fit))
    return heads
