"""Minimum description length of the choices given the features, by online coding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from sklearn.base import clone

from probing.probes.logistic import LogisticProbe
from probing.statistics import log2_losses

PARTS = (0.0625, 0.125, 0.25, 0.5, 1.0)
"""Ends of the parts that are sent one after another, as shares of the prompt groups."""


@dataclass(frozen=True)
class CodeLength:
    """How many bits the choices cost.

    Attributes:
        bits: Of all choices, sent part by part, each by a probe of the parts before it; the first by coins.
        uniform: Of the same choices sent by coins: one bit each.
        ends: Pairs sent after each part.
        cumulative: Bits after each part.
    """

    bits: float
    uniform: float
    ends: tuple[int, ...]
    cumulative: tuple[float, ...]

    @property
    def compression(self) -> float:
        """Uniform bits for each bit spent; 1 where the features tell nothing."""
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
    """Code choices online (Voita and Titov 2020): it is short where they are not only told by the features, but easily.

    Prompts are sent in a drawn order, no prompt cut; each part costs the log-loss of a probe whose strength, scale and
    coefficients come from the parts before it alone.

    Args:
        X: Differences of the pairs' features.
        y: Choices, 1 (first) or 0 (second), or shares.
        groups: Prompt group of each pair.
        probe: What is fitted; a :class:`LogisticProbe` if not given.
        parts: Ends of the parts, rising to 1.
        seed: Of the order of prompts.

    Raises:
        ValueError: Parts that do not rise to 1, or what the probe refuses.
    """
    if list(parts) != sorted(set(parts)) or not parts or parts[0] <= 0 or parts[-1] != 1.0:
        raise ValueError(f"Got parts {parts}, expected shares above 0 that rise to 1.0.")
    probe = LogisticProbe() if probe is None else probe
    X, y = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.float64)
    distinct, member = np.unique(np.asarray(groups), return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(distinct))[member]
    total, before = 0.0, 0
    ends, cumulative = [], []
    for part in parts:
        end = max(1, round(part * len(distinct)))
        known, sent = place < before, (place >= before) & (place < end)
        if before < probe.folds:
            # Too few prompts to choose a strength by: coins.
            total += float(sent.sum())
        elif sent.any():
            fitted = clone(probe).fit(X[known], y[known], member[known])
            total += float(log2_losses(fitted.decision_function(X[sent]), y[sent]).sum())
        before = end
        ends.append(int((place < end).sum()))
        cumulative.append(total)
    return CodeLength(total, float(len(y)), tuple(ends), tuple(cumulative))
