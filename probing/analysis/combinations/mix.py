"""A scalar mix over blocks: one head that reads a weighted mean of all blocks (Peters et al. 2018, equation 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import expit, softmax

from probing.analysis.engine import PairSet
from probing.probes import ALPHAS, LogisticProbe

ROUNDS = 20
_CONVERGED = 1e-3
"""Largest change of a weight at convergence."""
_LONGEST = 30.0
"""Largest logarithm of the margins' length."""


@dataclass(frozen=True)
class Mix:
    """Weights of blocks.

    Attributes:
        weights: (block,), above 0, summing to 1.
        scales: (block, channel): root mean square of the training differences, by which a block's features are divided.
        rounds: Rounds of the two steps.
    """

    weights: Float[np.ndarray, " block"]
    scales: Float[np.ndarray, "block channel"]
    rounds: int


def fit_mix(
    read: Callable[[int], Float[np.ndarray, "item channel"]],
    blocks: Sequence[int],
    pairs: PairSet,
    *,
    rounds: int = ROUNDS,
) -> Mix:
    """Learn the weights on training pairs.

    The reward is w'Σ_b p_b z_b with p = softmax(s), z_b the features of block b divided by their scale. Two steps
    alternate: w by the logistic probe on the mixed features, its strength selected in the first round; then s and the
    length of w, minimising the mean log-loss of γ·Σ_b p_b m_b over the margins m_b that w gives each block alone. Each
    step is a small smooth problem and holds one block's features at most; descent on all weights at once would need
    every block in memory.

    Args:
        read: Returns a block's features of all items.
        blocks: Which blocks.
        pairs: Training pairs.
        rounds: Largest number of rounds.
    """
    y = pairs.choices
    scales = np.stack([_scale(pairs.differences(read(block))) for block in blocks])
    weights = np.full(len(blocks), 1 / len(blocks))
    alphas, done = ALPHAS, 0
    while done < rounds:
        done += 1
        mixed = sum(p * pairs.differences(read(b)) / s for p, b, s in zip(weights, blocks, scales, strict=True))
        probe = LogisticProbe(alphas=alphas).fit(mixed, y, pairs.prompts)
        alphas = (probe.alpha_,)
        margins = np.stack(
            [pairs.differences(read(b)) @ (probe.coef_ / s) for b, s in zip(blocks, scales, strict=True)], axis=1
        )
        new = _weights(margins, y, weights)
        converged = np.abs(new - weights).max() < _CONVERGED
        weights = new
        if converged:
            break
    return Mix(weights, scales, done)


def mixed_features(
    mix: Mix, read: Callable[[int], Float[np.ndarray, "item channel"]], blocks: Sequence[int]
) -> Float[np.ndarray, "item channel"]:
    """Return the weighted mean of all blocks, for all items."""
    parts = (p * (read(b) / s) for p, b, s in zip(mix.weights, blocks, mix.scales, strict=True))
    return sum(parts).astype(np.float32)


def _weights(
    margins: Float[np.ndarray, "pair block"], y: Float[np.ndarray, " pair"], start: Float[np.ndarray, " block"]
) -> Float[np.ndarray, " block"]:
    """Minimise mean[log(1 + exp(m)) − y·m], m = exp(g)·margins·softmax(s), over s and g, by its exact gradient."""

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        p, length = softmax(x[:-1]), np.exp(x[-1])
        mixed = margins @ p
        m = length * mixed
        value = float(np.mean(np.logaddexp(0, m) - y * m))
        by_margin = (expit(m) - y) / len(y)
        by_p = length * (by_margin @ margins)
        return value, np.append(p * (by_p - p @ by_p), by_margin @ m)

    begin = np.append(np.log(np.maximum(start, 1e-6)), 0.0)
    begin = np.append(np.log(np.maximum(start, 1e-6)), 0.0)
    # A trial step of the line search may be long enough to overflow; no length of use is near the bound.
    bounds = [*[(None, None)] * (len(begin) - 1), (-_LONGEST, _LONGEST)]
    return softmax(minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds).x[:-1])


def _scale(differences: Float[np.ndarray, "pair channel"]) -> Float[np.ndarray, " channel"]:
    scale = np.sqrt(np.mean(differences**2, axis=0))
    return np.where(scale > 0, scale, 1.0)
