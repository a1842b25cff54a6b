"""How a cell's probe is made, fitted and asked, whichever probe it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from probing.analysis.pairs import Side
from probing.errors import UserError
from probing.probes import PROBES, SCALINGS, LinearProbe, LogisticProbe, NeuralProbe, RidgeProbe, online_code_length


@dataclass(frozen=True)
class Recipe:
    """A probe by name, and the scaling of its features.

    Attributes:
        probe: Of :data:`probing.probes.PROBES`.
        scaling: Of :data:`probing.probes.SCALINGS`, or ``auto``; only ``logistic`` and ``ridge`` know another than
            ``standard``.
        code_length: Whether to measure the description length of the training choices too, by online coding.

    Raises:
        UserError: Either is unknown, or the two do not go together.
    """

    probe: str = "logistic"
    scaling: str = "standard"
    code_length: bool = False

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
            choices: In the place of the side's own.
        """
        probe = self._probe()
        y = side.choices if choices is None else choices
        if isinstance(probe, NeuralProbe):
            items = self._items(features)
            rows = np.stack([side.first, side.second], axis=1)
            return probe.fit(rows if kept is None else np.where(kept[:, None], rows, rows[:, ::-1]), y, side.prompts,
                             items=items)  # fmt: skip
        X = side.differences(features)
        return probe.fit(X if kept is None else np.where(kept[:, None], X, -X), y, side.prompts)

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

    def _probe(self) -> LinearProbe | NeuralProbe:
        probe = PROBES[self.probe]()
        if isinstance(probe, LogisticProbe | RidgeProbe):
            probe.set_params(scaling=self.scaling)
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


LOGISTIC = Recipe()
