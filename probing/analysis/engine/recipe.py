"""How a probe is made, fitted and applied, whatever its kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from probing.analysis.engine.facets import PairSet
from probing.errors import UserError
from probing.probes import PROBES, SCALINGS, LinearProbe, LogisticProbe, NeuralProbe, RidgeProbe, online_code_length
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
        if self.probe not in PROBES:
            raise UserError(f"Unknown probe {self.probe!r}; choose one of {', '.join(PROBES)}.")
        if self.scaling not in (*SCALINGS, "auto"):
            raise UserError(f"Unknown scaling {self.scaling!r}; choose one of {', '.join(SCALINGS)}, auto.")
        if self.scaling != "standard" and not isinstance(PROBES[self.probe](), LogisticProbe | RidgeProbe):
            raise UserError(f"The probe {self.probe} always standardises; leave out --scaling {self.scaling}.")
        if self.code_length and self.probe != "logistic":
            raise UserError("Code lengths are measured only of the logistic probe; leave out --code-length.")

    def fit(
        self,
        features: Float[np.ndarray, "item ..."],
        pairs: PairSet,
        *,
        labels: Float[np.ndarray, " pair"] | None = None,
        swap: Bool[np.ndarray, " pair"] | None = None,
    ) -> LinearProbe | NeuralProbe:
        """Fit a probe.

        Args:
            features: Features of all items of the store.
            pairs: Training pairs.
            labels: Labels instead of those of :meth:`labels_of`.
            swap: Pairs whose two items are exchanged (shuffled control).
        """
        probe = self._probe()
        y = self.labels_of(pairs) if labels is None else labels
        weights = self._weights_of(pairs)
        if isinstance(probe, NeuralProbe):
            items = self._items(features)
            rows = np.stack([pairs.first, pairs.second], axis=1)
            rows = rows if swap is None else np.where(swap[:, None], rows[:, ::-1], rows)
            return probe.fit(rows, y, pairs.prompts, sample_weight=weights, items=items)
        return probe.fit(_differences(features, pairs, swap), y, pairs.prompts, sample_weight=weights)

    def labels_of(self, pairs: PairSet) -> Float[np.ndarray, " pair"]:
        """Return the training labels of pairs.

        Raises:
            UserError: The pairs have no such column, or a value is not in [0, 1].
        """
        values = _column(pairs, self.labels)
        if not ((values >= 0) & (values <= 1)).all():
            raise UserError(f"The column {self.labels} holds values that are not in [0, 1]; train on another.")
        return values

    def _weights_of(self, pairs: PairSet) -> Float[np.ndarray, " pair"] | None:
        if self.weights is None:
            return None
        values = _column(pairs, self.weights)
        if not (np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
            raise UserError(f"The column {self.weights} holds values that are no weights; give numbers above 0.")
        return values

    @staticmethod
    def temperature(probe: LinearProbe | NeuralProbe, labels: Float[np.ndarray, " pair"]) -> float:
        """Fit a temperature to margins of training pairs that the probe was not fitted to; NaN if it has none.

        A network's margins are those of its validation part, which also decided when to stop; one number fitted to
        them follows Guo et al. (2017).
        """
        margins = getattr(probe, "cv_margins_", None)
        if margins is None:
            return float("nan")
        finite = ~np.isnan(margins)
        return fit_temperature(margins[finite], labels[finite])

    def compression(
        self,
        features: Float[np.ndarray, "item ..."],
        pairs: PairSet,
        labels: Float[np.ndarray, " pair"],
        swap: Bool[np.ndarray, " pair"] | None = None,
    ) -> float:
        """Divide the bits of a fair coin by the bits of the labels given the features; NaN if not requested."""
        probe = self._probe()
        if not self.code_length or not isinstance(probe, LogisticProbe):
            return float("nan")
        return online_code_length(_differences(features, pairs, swap), labels, pairs.prompts, probe=probe).compression

    @property
    def resolved_device(self) -> str:
        """The device of matrix products, with ``auto`` replaced."""
        return _accelerator() if self.device == "auto" else self.device

    def _probe(self) -> LinearProbe | NeuralProbe:
        probe = PROBES[self.probe]()
        if isinstance(probe, LogisticProbe | RidgeProbe):
            probe.set_params(scaling=self.scaling)
        if isinstance(probe, LogisticProbe | NeuralProbe):
            probe.set_params(device=self.resolved_device)
        return probe

    def margins(
        self, probe: LinearProbe | NeuralProbe, features: Float[np.ndarray, "item ..."], pairs: PairSet
    ) -> Float[np.ndarray, "pair seed"]:
        """Return reward(first) − reward(second) of each pair, for each seed of the probe."""
        if isinstance(probe, NeuralProbe):
            rows, inverse = np.unique(np.stack([pairs.first, pairs.second]), return_inverse=True)
            rewards = probe.decision_functions(self._items(features)[rows])[inverse.reshape(2, -1)]
            return rewards[0] - rewards[1]
        return probe.decision_function(pairs.differences(features))[:, None]

    def rewards(
        self, probe: LinearProbe | NeuralProbe, features: Float[np.ndarray, "item ..."]
    ) -> Float[np.ndarray, " item"]:
        """Return the rewards of items."""
        if isinstance(probe, NeuralProbe):
            return probe.decision_function(self._items(features))
        return probe.decision_function(features.reshape(len(features), -1).astype(np.float64))

    def _items(self, features: Float[np.ndarray, "item ..."]) -> np.ndarray:
        if self.probe != "attention":
            return features.reshape(len(features), -1)
        if features.ndim < 3:
            raise UserError(
                "The probe attention reads tokens, and this reduction keeps none; give --reductions grid4 or tokens, "
                "and extract them if the store lacks them."
            )
        return features.reshape(len(features), -1, features.shape[-1])


def _differences(
    features: Float[np.ndarray, "item ..."], pairs: PairSet, swap: Bool[np.ndarray, " pair"] | None
) -> Float[np.ndarray, "pair channel"]:
    X = pairs.differences(features)
    return X if swap is None else np.where(swap[:, None], -X, X)


def _column(pairs: PairSet, name: str) -> Float[np.ndarray, " pair"]:
    if name not in pairs.table or not pd.api.types.is_numeric_dtype(pairs.table[name]):
        numeric = pairs.table.select_dtypes("number").columns
        raise UserError(f"The pairs have no column of numbers named {name}; they have {', '.join(numeric)}.")
    return pairs.table[name].to_numpy(dtype=np.float64)


def _accelerator() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


LOGISTIC = Recipe()
