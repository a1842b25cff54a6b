"""Minimum description length of the choices given the features, by online coding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from sklearn.base import clone

from probing.probes._logistic import LogisticProbe
from probing.statistics import log2_losses

PARTS = (0.0625, 0.125, 0.25, 0.5, 1.0)
"""Ends of the parts that are coded one after another, as shares of the prompt groups."""


@dataclass(frozen=True)
class CodeLength:
    """Length of a code of the choices.

    Attributes:
        bits: Bits of all choices: each part under a probe fitted to the parts before it, the first one at one bit each.
        uniform: Bits of the same choices at one bit each.
        ends: Number of pairs coded after each part.
        cumulative: Bits after each part.
    """

    bits: float
    uniform: float
    ends: tuple[int, ...]
    cumulative: tuple[float, ...]

    @property
    def compression(self) -> float:
        """Ratio of ``uniform`` to ``bits``; 1 for features without information."""
        return self.uniform / self.bits


def online_code_length(
    X: Float[np.ndarray, "pair channel"],
    y: Float[np.ndarray, " pair"],
    groups: ArrayLike,
    *,
    probe: LogisticProbe | None = None,
    parts: tuple[float, ...] = PARTS,
    seed: int = 0,
) -> CodeLength:
    """Compute the online code length of the choices (Voita and Titov 2020).

    It is short if the features predict the choices and few pairs suffice to learn how. Prompts are coded in a random
    order, each prompt whole; the bits of a part are the log-loss of a probe whose strength, scale and coefficients come
    from the parts before it alone.

    Args:
        X: Differences of the pairs' features.
        y: Choices, 1 (first) or 0 (second), or shares.
        groups: Prompt group of each pair.
        probe: Probe to fit; a :class:`LogisticProbe` if None.
        parts: Ends of the parts, increasing to 1.
        seed: Seed of the order of prompts.

    Raises:
        ValueError: Parts that do not increase to 1, or input that the probe cannot be fitted to.
    """
    if list(parts) != sorted(set(parts)) or not parts or parts[0] <= 0 or parts[-1] != 1.0:
        raise ValueError(f"Got parts {parts}, expected shares above 0 that increase to 1.0.")
    probe = LogisticProbe() if probe is None else probe
    X, y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    distinct, member = np.unique(np.asarray(groups), return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(distinct))[member]
    total, before = 0.0, 0
    ends, cumulative = [], []
    for part in parts:
        end = max(1, round(part * len(distinct)))
        train, coded = order < before, (order >= before) & (order < end)
        if before < probe.folds:
            # Too few prompts to choose a strength: one bit per choice.
            total += float(coded.sum())
        elif coded.any():
            fitted = clone(probe).fit(X[train], y[train], member[train])
            total += float(log2_losses(fitted.decision_function(X[coded]), y[coded]).sum())
        before = end
        ends.append(int((order < end).sum()))
        cumulative.append(total)
    return CodeLength(total, float(len(y)), tuple(ends), tuple(cumulative))
