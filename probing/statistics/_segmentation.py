"""Cut a similarity matrix into runs of similar positions: the best segmentations, their number, and their stability.

Segments are found by kernel change-point detection (Harchaoui and Cappé 2007): with a similarity that is an inner
product, the cost of a segment is the scatter of its members about their mean in the space of that inner product,
Σ_i S_ii − Σ_ij S_ij / length. Dynamic programming finds the segmentation of least cost into every number of segments.

The number of segments is chosen against a null of drift. If similarity decreases with distance, some segmentation fits
every matrix well, so its cost is compared with that of a *stationary* matrix: each diagonal of S replaced by its mean,
which is a drift at constant speed with the same similarity at every distance. The gap of a number of segments is the
share of scatter that remains under the null minus the share that remains in S (after the gap statistic of Tibshirani et
al. 2001).

A drift need not have one speed, and one that is faster here and slower there has gaps too. So the p-value is the chance
of such a gap in drifts whose speeds vary as much as those of S: steps between neighbours are drawn from a lognormal
distribution with the spread of the measured ones, by their median absolute deviation, which few borders do not widen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from probing.statistics._corrections import LEVEL

MAX_SEGMENTS = 10
LEAST_GAP = 0.05
"""Smallest gap of more than one segment: with many prompts, a smaller one is significant but does not matter."""
SEGMENT_RESAMPLES = 500
_EXACT = 1e-9
_MEDIAN_EFFICIENCY = 0.37
"""Efficiency of the median absolute deviation under a normal distribution."""


@dataclass(frozen=True)
class Segmentations:
    """The best segmentation into every number of segments, and the number that was chosen.

    Attributes:
        number: Chosen number of segments: 1 if the largest gap is below ``least_gap`` or not significant; else the
            smallest number whose gap is within a standard error of the largest.
        starts: First position of each segment, for 1, 2, … segments.
        scatter: Share of the scatter that remains, by number.
        gap: Share of the scatter that remains under the null, minus ``scatter``, by number.
        gap_error: Standard error of the gap over groups.
        p_value: Chance of a largest gap at least this large in drifts of as uneven a speed, with the same noise.
        number_share: Share of resamples that choose each number (by gap and least gap, without their p-values).
        segment_share: For each number and segment, share of resamples whose best segmentation has the same segment.
        start_share: For each number and segment, share of resamples whose best segmentation has the same start.
    """

    number: int
    starts: tuple[tuple[int, ...], ...]
    scatter: Float[np.ndarray, " number"]
    gap: Float[np.ndarray, " number"]
    gap_error: Float[np.ndarray, " number"]
    p_value: float
    number_share: Float[np.ndarray, " number"]
    segment_share: tuple[tuple[float, ...], ...]
    start_share: tuple[tuple[float, ...], ...]


def find_segments(
    values: Float[np.ndarray, "group position position"],
    *,
    shortest: int = 1,
    largest: int = MAX_SEGMENTS,
    least_gap: float = LEAST_GAP,
    level: float = LEVEL,
    resamples: int = SEGMENT_RESAMPLES,
    seed: int = 0,
) -> Segmentations:
    """Cut the mean of similarity matrices into runs, and resample groups to measure how stable the result is.

    Args:
        values: One symmetric matrix per group (a prompt).
        shortest: Smallest number of positions in a segment.
        largest: Largest number of segments to try; the number of positions may limit it further.
        least_gap: See :data:`LEAST_GAP`.
        level: Largest p-value at which there is more than one segment.
        resamples: Number of resamples of the groups, with replacement.
        seed: Seed of the resamples.

    Raises:
        ValueError: Not symmetric, not finite, fewer than two groups or positions, or no segment fits.
    """
    values = np.asarray(values, dtype=float)
    groups, positions = values.shape[0], values.shape[-1]
    if values.ndim != 3 or values.shape[1] != positions or positions < 2 or groups < 2:
        raise ValueError(f"Expected at least 2 square matrices of at least 2 positions, got shape {values.shape}.")
    if not np.allclose(values, values.transpose(0, 2, 1), atol=1e-6):
        raise ValueError("Got matrices that are not symmetric or not finite; a similarity is both.")
    if not 1 <= shortest <= positions:
        raise ValueError(f"The shortest segment has 1 … {positions} positions, got {shortest}.")
    numbers = max(1, min(largest, positions // shortest))
    mean = values.mean(axis=0)
    weights = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=resamples) / groups
    drawn = np.tensordot(weights, values, axes=1)
    # Sampling noise of the null: the part of it that is no drift itself.
    noise = drawn - mean
    noise -= stationary(noise)

    scatter, starts = _shares(mean[None], numbers, shortest)
    drawn_scatter, drawn_starts = _shares(drawn, numbers, shortest)
    null, _ = _shares(stationary(mean) + noise, numbers, shortest)
    drawn_null, _ = _shares(stationary(drawn) + noise, numbers, shortest)
    gap, drawn_gap = null.mean(axis=0) - scatter[0], drawn_null - drawn_scatter
    error = drawn_gap.std(axis=0)
    uneven, _ = _shares(uneven_drifts(mean, resamples, seed) + noise, numbers, shortest)
    chance = (null.mean(axis=0) - uneven).max(axis=1)
    p_value = float((np.sum(chance >= gap.max()) + 1) / (resamples + 1)) if gap.max() > _EXACT else 1.0

    chosen = np.array([_choose(one, error, least_gap) for one in drawn_gap])
    return Segmentations(
        number=_choose(gap, error, least_gap) if p_value <= level else 1,
        starts=tuple(tuple(starts[k][0].tolist()) for k in range(numbers)),
        scatter=scatter[0],
        gap=gap,
        gap_error=error,
        p_value=p_value,
        number_share=np.bincount(chosen - 1, minlength=numbers) / resamples,
        segment_share=tuple(_segment_share(starts[k][0], drawn_starts[k], positions) for k in range(numbers)),
        start_share=tuple(
            tuple(float((drawn_starts[k] == start).any(axis=1).mean()) for start in starts[k][0])
            for k in range(numbers)
        ),
    )


def best_segmentations(
    similarity: Float[np.ndarray, "*batch position position"], numbers: int, shortest: int = 1
) -> tuple[Float[np.ndarray, "*batch number"], list[Int[np.ndarray, "*batch _"]]]:
    """Find the segmentation of least cost into 1 … ``numbers`` segments, by dynamic programming.

    Returns:
        Their costs, and the first position of each segment, one array per number.
    """
    cost = segment_costs(similarity)
    *batch, positions, _ = cost.shape
    length = np.arange(positions)[None, :] - np.arange(positions)[:, None] + 1
    cost = np.where(length >= shortest, cost, np.inf)
    # least[k][..., j]: cost of positions 0 … j in k + 1 segments; back[k][..., j]: where the last one starts.
    least, back = [cost[..., 0, :]], [np.zeros((*batch, positions), dtype=int)]
    for _ in range(1, numbers):
        before = np.concatenate([np.full((*batch, 1), np.inf), least[-1][..., :-1]], axis=-1)
        through = before[..., :, None] + cost
        back.append(through.argmin(axis=-2))
        least.append(np.take_along_axis(through, back[-1][..., None, :], axis=-2)[..., 0, :])
    starts = []
    for number in range(numbers):
        first = np.zeros((*batch, number + 1), dtype=int)
        end = np.full((*batch, 1), positions - 1)
        for segment in range(number, 0, -1):
            start = np.take_along_axis(back[segment], end, axis=-1)
            first[..., segment] = start[..., 0]
            end = start - 1
        starts.append(first)
    return np.stack([one[..., -1] for one in least], axis=-1), starts


def segment_costs(similarity: Float[np.ndarray, "*batch position position"]) -> Float[np.ndarray, "*batch first last"]:
    """Return the scatter of every segment first … last; infinity where the last comes before the first."""
    positions = similarity.shape[-1]
    batch = similarity.shape[:-2]
    area = np.zeros((*batch, positions + 1, positions + 1))
    area[..., 1:, 1:] = similarity.cumsum(axis=-1).cumsum(axis=-2)
    trace = np.zeros((*batch, positions + 1))
    trace[..., 1:] = np.diagonal(similarity, axis1=-2, axis2=-1).cumsum(axis=-1)
    first, after = np.arange(positions)[:, None], np.arange(1, positions + 1)[None, :]
    valid = after > first
    square = area[..., after, after] - area[..., first, after] - area[..., after, first] + area[..., first, first]
    scatter = trace[..., after] - trace[..., first] - square / np.where(valid, after - first, 1)
    return np.where(valid, scatter, np.inf)


def stationary(
    similarity: Float[np.ndarray, "*batch position position"],
) -> Float[np.ndarray, "*batch position position"]:
    """Replace every diagonal by its mean: the same similarity at every distance, and no segments."""
    positions = similarity.shape[-1]
    even = np.empty_like(similarity)
    for distance in range(positions):
        row = np.arange(positions - distance)
        mean = np.diagonal(similarity, distance, axis1=-2, axis2=-1).mean(axis=-1)[..., None]
        even[..., row, row + distance] = even[..., row + distance, row] = mean
    return even


def uneven_drifts(
    similarity: Float[np.ndarray, "position position"], count: int, seed: int
) -> Float[np.ndarray, "count position position"]:
    """Draw drifts without borders whose speeds vary as much as those of a similarity matrix.

    The steps between neighbours, one less their similarity, have a spread on the logarithm: 1.4826 times the median
    absolute deviation, itself uncertain by few steps, so each draw takes it with the error of a χ² of that many. A draw
    of steps places the positions on a line; their similarity is that of the constant drift at the same distance.
    """
    positions = similarity.shape[-1]
    rng = np.random.default_rng(seed)
    steps = np.maximum(similarity.diagonal().mean() - np.diagonal(similarity, 1), _EXACT)
    logs = np.log(steps)
    spread = 1.4826 * float(np.median(np.abs(logs - np.median(logs))))
    degrees = max(1.0, _MEDIAN_EFFICIENCY * (positions - 2))
    spreads = spread * np.sqrt(degrees / rng.chisquare(degrees, size=(count, 1)))
    drawn = np.exp(np.minimum(spreads, 3.0) * rng.standard_normal((count, positions - 1)))
    drawn /= drawn.mean(axis=1, keepdims=True)
    places = np.concatenate([np.zeros((count, 1)), drawn.cumsum(axis=1)], axis=1)
    distance = np.abs(places[:, :, None] - places[:, None, :])
    by_distance = stationary(similarity)[0]
    drifts: Float[np.ndarray, "count position position"] = np.interp(distance, np.arange(positions), by_distance)
    # A diagonal is a position with itself, not two at distance 0.
    drifts[:, range(positions), range(positions)] = similarity.diagonal().mean()
    return drifts


def _shares(
    similarity: Float[np.ndarray, "batch position position"], numbers: int, shortest: int
) -> tuple[Float[np.ndarray, "batch number"], list[Int[np.ndarray, "batch _"]]]:
    """Return costs as shares of the cost of one segment, so that the overall similarity does not matter."""
    costs, starts = best_segmentations(similarity, numbers, shortest)
    whole = costs[:, :1]
    return np.where(whole > _EXACT, costs / np.where(whole > _EXACT, whole, 1.0), 1.0), starts


def _choose(gap: Float[np.ndarray, " number"], error: Float[np.ndarray, " number"], least_gap: float) -> int:
    best = int(gap.argmax())
    if gap[best] < least_gap:
        return 1
    return int(np.flatnonzero(gap >= gap[best] - error[best] - _EXACT)[0]) + 1


def _segment_share(
    starts: Int[np.ndarray, " segment"], drawn: Int[np.ndarray, "resample segment"], positions: int
) -> tuple[float, ...]:
    """Return the share of resamples that contain each segment, with the same first and last position."""
    ends, drawn_ends = (
        np.concatenate([one[..., 1:], np.full((*one.shape[:-1], 1), positions)], axis=-1) for one in (starts, drawn)
    )
    same = (drawn[:, :, None] == starts) & (drawn_ends[:, :, None] == ends)
    return tuple(same.any(axis=1).mean(axis=0).tolist())
