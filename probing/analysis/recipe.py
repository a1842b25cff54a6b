"""How a cell's probe is made, fitted and asked, whichever probe it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from probing.analysis.pairs import Side
from probing.errors import UserError
from probing.probes import PROBES, SCALINGS, LinearProbe, LogisticProbe, NeuralProbe, RidgeProbe, online_code_length
from probing.statistics import fit_temperature


@dataclass(frozen=True)
class Recipe:
    """A probe by name, and the scaling of its features.

    Attributes:
        probe: Of :data:`probing.probes.PROBES`.
        scaling: Of :data:`probing.probes.SCALINGS`, or ``auto``; only ``logistic`` and ``ridge`` know another than
            ``standard``.
        code_length: Whether to measure the description length of the training choices too, by online coding.
        labels: Column of the pairs to train on, in [0, 1]: the choices, or ``share_first`` of the annotators.
        weights: Column that says how much each training pair counts, such as ``confidence``; all alike if None.
        device: Where matrix products of ``logistic`` and of networks are made, as torch names it; ``auto`` is an
            accelerator where there is one.

    Raises:
        UserError: Either is unknown, or the two do not go together.
    """

    probe: str = "logistic"
    scaling: str = "standard"
    code_length: bool = False
    labels: str = "choice"
    weights: str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.probe not in PROBES:
            raise UserError(f"Unknown probe {self.probe!r}; known are {', '.join(PROBES)}.")
        if self.scaling not in (*SCALINGS, "auto"):
            raise UserError(f"Unknown scaling {self.scaling!r}; known are {', '.join(SCALINGS)}, auto.")
        if self.scaling != "standard" and not isinstance(PROBES[self.probe](), LogisticProbe | RidgeProbe):
            raise UserError(f"The probe {self.probe} always standardises; leave out --scale {self.scaling}.")
        if self.code_length and self.probe != "logistic":
            raise UserError("Code lengths are measured only of the logistic probe; leave out --code-length.")

    def fit(
        self,
        features: Float[np.ndarray, "item ..."],
        side: Side,
        kept: Bool[np.ndarray, " pair"] | None = None,
        choices: Float[np.ndarray, " pair"] | None = None,
    ) -> LinearProbe | NeuralProbe:
        """Fit to the pairs of one side of a split.

        Args:
            features: Of all items of the store.
            side: The pairs.
            kept: Where false, a pair's two items change places (a control's doing).
            choices: In the place of the side's own labels.
        """
        probe = self._probe()
        y = self.labels_of(side) if choices is None else choices
        weights = self._weights_of(side)
        if isinstance(probe, NeuralProbe):
            items = self._items(features)
            rows = np.stack([side.first, side.second], axis=1)
            return probe.fit(
                rows if kept is None else np.where(kept[:, None], rows, rows[:, ::-1]),
                y,
                side.prompts,
                sample_weight=weights,
                items=items,
            )
        X = side.differences(features)
        return probe.fit(X if kept is None else np.where(kept[:, None], X, -X), y, side.prompts, sample_weight=weights)

    def labels_of(self, side: Side) -> Float[np.ndarray, " pair"]:
        """Give what a side's pairs are trained on.

        Raises:
            UserError: The pairs have no such column, or it holds no shares.
        """
        values = self._column(side, self.labels)
        if not ((values >= 0) & (values <= 1)).all():
            raise UserError(f"The column {self.labels} holds values that are not in [0, 1]; train on another.")
        return values

    def _weights_of(self, side: Side) -> Float[np.ndarray, " pair"] | None:
        if self.weights is None:
            return None
        values = self._column(side, self.weights)
        if not (np.isfinite(values).all() and (values >= 0).all() and values.sum() > 0):
            raise UserError(f"The column {self.weights} holds values that are no weights; give numbers above 0.")
        return values

    @staticmethod
    def _column(side: Side, name: str) -> Float[np.ndarray, " pair"]:
        if name not in side.table or not pd.api.types.is_numeric_dtype(side.table[name]):
            numeric = side.table.select_dtypes("number").columns
            raise UserError(f"The pairs have no column of numbers named {name}; they have {', '.join(numeric)}.")
        return side.table[name].to_numpy(dtype=np.float64)

    @staticmethod
    def temperature(probe: LinearProbe | NeuralProbe, labels: Float[np.ndarray, " pair"]) -> float:
        """Fit a temperature to margins of training pairs that the probe was not fitted to; NaN if it has none.

        A network's are those of its validation part, which also said when to stop; one number fitted to them is what
        Guo et al. (2017) do.
        """
        margins = getattr(probe, "cv_margins_", None)
        if margins is None:
            return float("nan")
        known = ~np.isnan(margins)
        return fit_temperature(margins[known], labels[known])

    def compression(
        self,
        features: Float[np.ndarray, "item ..."],
        side: Side,
        choices: Float[np.ndarray, " pair"],
        kept: Bool[np.ndarray, " pair"] | None = None,
    ) -> float:
        """Bits of coins for each bit that the choices cost given the features; NaN if it is not asked for."""
        probe = self._probe()
        if not self.code_length or not isinstance(probe, LogisticProbe):
            return float("nan")
        X = side.differences(features)
        X = X if kept is None else np.where(kept[:, None], X, -X)
        return online_code_length(X, choices, side.prompts, probe=probe).compression

    @property
    def resolved_device(self) -> str:
        """Where matrix products are made: ``auto`` replaced by the device that is here."""
        return _accelerator() if self.device == "auto" else self.device

    def _probe(self) -> LinearProbe | NeuralProbe:
        probe = PROBES[self.probe]()
        if isinstance(probe, LogisticProbe | RidgeProbe):
            probe.set_params(scaling=self.scaling)
        if isinstance(probe, LogisticProbe | NeuralProbe):
            probe.set_params(device=self.resolved_device)
        return probe

    def margins(
        self, probe: LinearProbe | NeuralProbe, features: Float[np.ndarray, "item ..."], side: Side
    ) -> Float[np.ndarray, "pair seed"]:
        """Give the margins of a side's pairs, of each seed of the probe."""
        if isinstance(probe, NeuralProbe):
            rows, inverse = np.unique(np.stack([side.first, side.second]), return_inverse=True)
            rewards = probe.decision_functions(self._items(features)[rows])[inverse.reshape(2, -1)]
            return rewards[0] - rewards[1]
        return probe.decision_function(side.differences(features))[:, None]

    def rewards(
        self, probe: LinearProbe | NeuralProbe, features: Float[np.ndarray, "item ..."]
    ) -> Float[np.ndarray, " item"]:
        """Give the rewards of items."""
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


def _accelerator() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


LOGISTIC = Recipe()
