"""Margins as probabilities: are they right as often as they say, and how many bits do they tell?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from scipy.special import expit

BINS = 10
_TEMPERATURES = (1e-3, 1e3)


@dataclass(frozen=True)
class Reliability:
    """Right answers by how sure the probe was; arrays are (bin,), empty bins left out.

    Attributes:
        confidence: Mean probability that the probe gives its own answer, in [0.5, 1].
        accuracy: Share of right answers.
        pairs: How many.
        error: Expected calibration error: mean absolute gap of the two, weighted by pairs (Naeini et al. 2015).
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    pairs: np.ndarray
    error: float


def log2_losses(margins: Float[np.ndarray, " pair"], choices: Float[np.ndarray, " pair"]) -> Float[np.ndarray, " pair"]:
    """Bits that each choice costs under P(first) = 1 / (1 + exp(−margin)); a tie costs the mean of both answers."""
    margins, choices = _checked(margins, choices)
    return (np.logaddexp(0.0, margins) - choices * margins) / np.log(2)


def usable_information(
    margins: Float[np.ndarray, " pair"], choices: Float[np.ndarray, " pair"]
) -> Float[np.ndarray, " pair"]:
    """Bits a pair that the margins tell of the choice beyond a fair coin; may be negative. NaN where people were tied.

    Their mean on held-out pairs estimates the predictive V-information of Xu et al. (2020), the family V being the
    probe's: without features, and with sides that mean nothing, its best guess is a coin of one bit.
    """
    bits = 1.0 - log2_losses(margins, choices)
    return np.where(np.asarray(choices, dtype=float) == 0.5, np.nan, bits)


def reliability(
    margins: Float[np.ndarray, " pair"], choices: Float[np.ndarray, " pair"], *, bins: int = BINS
) -> Reliability:
    """Compare how sure with how right, in bins of equally many untied pairs.

    Raises:
        ValueError: No untied pair, or what the shapes forbid.
    """
    margins, choices = _checked(margins, choices)
    untied = choices != 0.5
    if not untied.any():
        raise ValueError("There is no untied pair; nothing can be said of calibration.")
    margins, choices = margins[untied], choices[untied]
    confidence = expit(np.abs(margins))
    right = np.where(margins == 0, 0.5, ((margins > 0) == (choices > 0.5)).astype(float))
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    sure, accuracy = (np.array([values[part].mean() for part in parts]) for values in (confidence, right))
    pairs = np.array([len(part) for part in parts])
    return Reliability(sure, accuracy, pairs, float(np.average(np.abs(sure - accuracy), weights=pairs)))


def fit_temperature(margins: Float[np.ndarray, " pair"], choices: Float[np.ndarray, " pair"]) -> float:
    """Find the T for which margins / T cost fewest bits (Guo et al. 2017); on validation pairs, never on test pairs.

    It moves no choice. Margins that tell nothing end at the largest temperature, 1000.

    Raises:
        ValueError: What the shapes forbid.
    """
    margins, choices = _checked(margins, choices)
    low, high = np.log(_TEMPERATURES)
    found = minimize_scalar(
        lambda log_t: float(log2_losses(margins * np.exp(-log_t), choices).mean()), bounds=(low, high), method="bounded"
    )
    return float(np.exp(found.x))


def _checked(margins, choices) -> tuple[np.ndarray, np.ndarray]:
    margins, choices = np.asarray(margins, dtype=float), np.asarray(choices, dtype=float)
    if margins.shape != choices.shape:
        raise ValueError(f"Each pair has one margin and one choice, got shapes {margins.shape} and {choices.shape}.")
    if not np.isfinite(margins).all():
        raise ValueError("Margins must be finite; look for NaN among the features.")
    return margins, choices
