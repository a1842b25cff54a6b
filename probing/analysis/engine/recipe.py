"""How a probe is made, fitted and applied, whatever its kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.analysis.engine.facets import PairSet
from probing.analysis.engine.source import Features, flatten
from probing.errors import UserError
from probing.probes import LogisticProbe, Probe, make_probe, online_code_length, relabelled_margins
from probing.statistics import fit_temperature


@dataclass(frozen=True)
class Recipe:
    """A probe by name, and what it is trained on.

    Attributes:
        probe: Kind of probe.
        scaling: Scaling of the features; ``auto`` selects one out of fold. Only logistic and ridge have a choice.
        code_length: Also measure description lengths by online coding (logistic only).
        labels: Column of the pairs to train on, in [0, 1]: choice, or share_first of the annotators.
        weights: Column with the weight of each training pair, such as confidence; default: equal weights.
        device: Device of matrix products and networks: auto, cpu, or a torch device.

    Raises:
        UserError: An unknown name, or two that do not go together.
    """

    probe: str = "logistic"
    scaling: str = "standard"
    code_length: bool = False
    labels: str = "choice"
    weights: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        self._probe(device="cpu")
        if self.code_length and self.probe != "logistic":
            raise UserError("Code lengths are measured only of the logistic probe; leave out --code-length.")

    def fit(self, features: Features, pairs: PairSet) -> Probe:
        """Fit a probe to training pairs, given the features of all items of the store."""
        probe = self._probe(device=self.resolved_device)
        y, weights = self.labels_of(pairs), self.weights_of(pairs)
        return probe.fit_pairs(self._items(features), pairs.rows, y, pairs.prompts, weights)

    def shuffled_margins(
        self, probe: Probe, features: Features, train: PairSet, test: PairSet, shuffles: int, rng: np.random.Generator
    ) -> Float[np.ndarray, "pair shuffle"]:
        """Return the margins of test pairs by refits of a fitted probe to shuffled training labels.

        A shuffle swaps the two items of each pair with probability one half and permutes the labels among pairs: a
        permutation alone would change nothing if the chosen item always came first. Refits keep the strength and
        scaling of the probe.
        """
        y = self.labels_of(train)
        swapped = rng.random((shuffles, len(y))) < 0.5
        labels = np.empty((len(y), shuffles))
        for shuffle, swap in enumerate(swapped):
            permuted = rng.permutation(np.where(swap, 1 - y, y))
            labels[:, shuffle] = np.where(swap, 1 - permuted, permuted)
        weights = self.weights_of(train)
        return relabelled_margins(probe, self._items(features), train.rows, labels, test.rows, train.prompts, weights)

    @property
    def streams(self) -> bool:
        """Whether its fits can read features from the disk, a block at a time."""
        return self.probe == "logistic" and self.scaling not in ("auto", "whiten") and not self.code_length

    def labels_of(self, pairs: PairSet) -> Float[np.ndarray, " pair"]:
        """Return the training labels of pairs.

        Raises:
            UserError: The pairs have no such column, or a value is not in [0, 1].
        """
        values = _column(pairs, self.labels)
        if not ((values >= 0) & (values <= 1)).all():
            raise UserError(f"The column {self.labels} holds values that are not in [0, 1]; train on another.")
        return values

    @staticmethod
    def temperature(probe: Probe, labels: Float[np.ndarray, " pair"]) -> float:
        """Fit a temperature to margins of training pairs that the probe was not fitted to; NaN if it has none.

        A network's margins are those of its validation part, which also decided when to stop; one number fitted to
        them follows Guo et al. (2017).
        """
        finite = ~np.isnan(probe.cv_margins_)
        return fit_temperature(probe.cv_margins_[finite], labels[finite]) if finite.any() else float("nan")

    def compression(self, features: Features, pairs: PairSet, labels: Float[np.ndarray, " pair"]) -> float:
        """Divide the bits of a fair coin by the bits of the labels given the features; NaN if not requested."""
        probe = self._probe(device=self.resolved_device)
        if not self.code_length or not isinstance(probe, LogisticProbe):
            return float("nan")
        assert isinstance(features, np.ndarray), "code lengths are of features in memory"
        return online_code_length(pairs.differences(features), labels, pairs.prompts, probe=probe).compression

    def margins(self, probe: Probe, features: Features, pairs: PairSet) -> Float[np.ndarray, "pair seed"]:
        """Return reward(first) − reward(second) of each pair, for each seed of the probe."""
        return probe.pair_margins(self._items(features), pairs.rows)

    def rewards(self, probe: Probe, features: Features) -> Float[np.ndarray, " item"]:
        """Return the rewards of items."""
        return probe.rewards(self._items(features))

    @property
    def resolved_device(self) -> str:
        """The device of matrix products, with ``auto`` replaced."""
        return _accelerator() if self.device == "auto" else self.device

    def _probe(self, *, device: str) -> Probe:
        return make_probe(self.probe, scaling=self.scaling, device=device)

    def weights_of(self, pairs: PairSet) -> Float[np.ndarray, " pair"] | None:
        if self.weights is None:
            return None
        values = _column(pairs, self.weights)
        if not (np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
            raise UserError(f"The column {self.weights} holds values that are no weights; give numbers above 0.")
        return values

    def _items(self, features: Features) -> Any:
        if self.probe != "attention":
            return flatten(features)
        assert isinstance(features, np.ndarray), "only logistic probes read from the disk"
        if features.ndim < 3:
            raise UserError(
                "The probe attention reads tokens, and this reduction keeps none; give --reductions grid4 or tokens, "
                "and extract them if the store lacks them."
            )
        return features.reshape(len(features), -1, features.shape[-1])


def _column(pairs: PairSet, name: str) -> Float[np.ndarray, " pair"]:
    if name not in pairs.table or not pd.api.types.is_numeric_dtype(pairs.table[name]):
        numeric = pairs.table.select_dtypes("number").columns
        raise UserError(f"The pairs have no column of numbers named {name}; they have {', '.join(numeric)}.")
    return pairs.table[name].to_numpy(dtype=np.float64)


def _accelerator() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


LOGISTIC = Recipe()
