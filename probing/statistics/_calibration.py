"""Margins as probabilities: calibration, temperature, and information in bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import expit

from probing.statistics._scoring import check_margins

BINS = 10
_TEMPERATURES = (1e-3, 1e3)


@dataclass(frozen=True)
class Reliability:
    """Accuracy by confidence, over bins of pairs; empty bins are left out.

    Attributes:
        confidence: Mean probability of the predicted side, in [0.5, 1].
        accuracy: Share of correct predictions.
        pairs: Number of pairs.
        error: Expected calibration error: mean absolute difference of the two, weighted by pairs (Naeini et al. 2015).
    """

    confidence: Float[np.ndarray, " bin"]
    accuracy: Float[np.ndarray, " bin"]
    pairs: Int[np.ndarray, " bin"]
    error: float


def log2_losses(margins: Float[np.ndarray, " pair"], choices: Float[np.ndarray, " pair"]) -> Float[np.ndarray, " pair"]:
    """Return each choice's log-loss in bits under P(first) = 1 / (1 + exp(−margin)).

    A tie has the mean loss of the two sides.

    Raises:
        ValueError: Different lengths, or margins that are not finite.
    """
    margins, choices = check_margins(margins, choices)
    losses: Float[np.ndarray, " pair"] = (np.logaddexp(0.0, margins) - choices * margins) / np.log(2)
    return losses


def usable_information(
    margins: Float[np.ndarray, " pair"], choices: Float[np.ndarray, " pair"]
) -> Float[np.ndarray, " pair"]:
    """Return the bits by which margins beat a fair coin, for each pair; may be negative, and NaN for a tied choice.

    The mean over held-out pairs estimates the predictive V-information of Xu et al. (2020), the family V being the
    probe's: without features, where the order of a pair is arbitrary, its best guess is a coin of one bit.

    Raises:
        ValueError: Different lengths, or margins that are not finite.
    """
    bits = 1.0 - log2_losses(margins, choices)
    return np.where(np.asarray(choices, dtype=float) == 0.5, np.nan, bits)


def reliability(
    margins: Float[np.ndarray, " pair"], choices: Float[np.ndarray, " pair"], *, bins: int = BINS
) -> Reliability:
    """Compare confidence with accuracy, in bins of equally many untied pairs.

    Raises:
        ValueError: No untied pair, different lengths, or margins that are not finite.
    """
    margins, choices = check_margins(margins, choices)
    untied = choices != 0.5
    if not untied.any():
        raise ValueError("There is no untied pair to measure calibration on; give pairs with a choice.")
    margins, choices = margins[untied], choices[untied]
    confidence = expit(np.abs(margins))
    correct = np.where(margins == 0, 0.5, ((margins > 0) == (choices > 0.5)).astype(float))
    order = np.argsort(confidence, kind="stable")
    members = [part for part in np.array_split(order, bins) if len(part)]
    confidence, accuracy = (np.array([values[part].mean() for part in members]) for values in (confidence, correct))
    pairs = np.array([len(part) for part in members])
    return Reliability(confidence, accuracy, pairs, float(np.average(np.abs(confidence - accuracy), weights=pairs)))


def fit_temperature(margins: Float[np.ndarray, " pair"], choices: Float[np.ndarray, " pair"]) -> float:
    """Find the T that minimises the log-loss of margins / T (Guo et al. 2017).

    Fit it to validation pairs, never to test pairs. The predicted sides stay the same. Margins without information
    give the largest temperature, 1000.

    Raises:
        ValueError: Different lengths, or margins that are not finite.
    """
    margins, choices = check_margins(margins, choices)
    low, high = np.log(_TEMPERATURES)
    optimum = minimize_scalar(
        lambda log_t: float(log2_losses(margins * np.exp(-log_t), choices).mean()), bounds=(low, high), method="bounded"
    )
    return float(np.exp(optimum.x))
