"""Cluster bootstrap over prompts: resamples draw whole prompt groups, never single pairs.

A resample gives each group a weight, the number of times it is drawn, so all resamples of all columns are one product
of a weight matrix with the groups' sums (Field and Welsh 2007, section 3).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from probing.statistics._groups import GroupSums

RESAMPLES = 2000
_WEIGHTS_AT_ONCE = 2**24


def resampled_means(by_group: GroupSums, resamples: int, seed: int) -> Float[np.ndarray, "resample column"]:
    """Draw as many groups as there are, with replacement, and return the mean over pairs of each resample.

    Args:
        by_group: Groups to draw; a row of the result is the same draw of groups in every column.
        resamples: Number of resamples.
        seed: Seed of the resamples.
    """
    groups, columns = by_group.sums.shape
    drawn = np.empty((resamples, columns))
    rng = np.random.default_rng(seed)
    step = max(1, _WEIGHTS_AT_ONCE // groups)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        rows = rng.integers(groups, size=(stop - start, groups), dtype=np.int32)
        weights = np.stack([np.bincount(row, minlength=groups) for row in rows]).astype(float)
        with np.errstate(invalid="ignore"):
            drawn[start:stop] = (weights @ by_group.sums) / (weights @ by_group.counts)
    return drawn
