"""Probes that are small networks: an MLP on reduced features, attention over tokens."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, Real, Shaped
from numpy.typing import ArrayLike
from sklearn.model_selection import GroupShuffleSplit
from sklearn.utils.validation import check_is_fitted

from probing.probes._base import Probe, accuracy_of, check_choices, check_weights
from probing.probes._selection import check_apart

if TYPE_CHECKING:
    from probing.probes._heads import BuildHead

_ROWS_AT_ONCE = 1024


@runtime_checkable
class ItemFeatures(Protocol):
    """Features by row, in memory or on disk: an array, a memory map, or any object indexed by increasing rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Items, then the shape of one item's features."""
        ...

    def __getitem__(self, rows: Any, /) -> Any:
        """Return the features of rows."""
        ...


class NoiseLevel(NamedTuple):
    """One noise level of a head that is trained on one at a time.

    Attributes:
        hidden: Tokens of the other levels, (token,).
        deviation: Margins are divided by it in the loss.
    """

    hidden: Bool[np.ndarray, " token"]
    deviation: float


@dataclass(eq=False, repr=False)
class NeuralProbe(Probe):
    """A network that scores single items, trained on pairs by the difference of its two rewards.

    Features are standardised by each channel's mean and deviation over the items of the training part. A validation
    part of whole prompt groups is set aside; each seed keeps the weights of the epoch with the lowest validation loss
    and stops ``patience`` epochs later. Features are read batch by batch, so they need not fit in memory.

    Args:
        loss: ``bradley-terry``, or ``fidelity``: Thurstone's model with the fidelity loss.
        seeds: Number of initialisations and orders of pairs, trained together.
        epochs: Largest number of passes over the training part.
        batch_size: Pairs per step.
        learning_rate: Learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        warmup: Share of all steps in which the learning rate rises to its value, in equal steps.
        patience: Epochs without a lower validation loss before a seed stops.
        validation: Share of the prompt groups that is set aside for stopping.
        device: ``auto``, or in torch's notation.
        seed: First random seed; the seeds count up from it.

    Attributes:
        cv_accuracy_: Accuracy on the validation part, mean over seeds.
        cv_margins_: Margins of the validation part, mean over seeds; NaN for the pairs of the training part.
        alpha_: NaN: no strength is chosen.
        scaling_: ``standard``.
        validation_loss_: Lowest validation loss of each seed.
        epochs_: Epoch of each seed's weights, from 1.
        n_features_in_: Number of features of an item.
    """

    loss: str = "bradley-terry"
    seeds: int = 3
    epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.0
    patience: int = 5
    validation: float = 0.15
    device: str = "auto"
    seed: int = 0

    @abstractmethod
    def _head(self, shape: tuple[int, ...]) -> BuildHead:
        """Return the function that builds the network for items of a shape, given one generator per seed."""

    @abstractmethod
    def _arrange(self, items: Shaped[np.ndarray, "item *shape"]) -> Shaped[np.ndarray, "item *arranged"]:
        """Bring features of items to the shape that the network takes."""

    def _levels(self) -> list[NoiseLevel]:
        """Return the noise levels of which each training step reads one a pair; empty where it reads everything."""
        return []

    def fit(
        self,
        X: Float[np.ndarray, "pair 2 *shape"] | Int[np.ndarray, "pair 2"],
        y: Float[np.ndarray, " pair"],
        groups: ArrayLike | None = None,
        sample_weight: Real[np.ndarray, " pair"] | None = None,
        items: ItemFeatures | None = None,
    ) -> NeuralProbe:
        """Train all seeds.

        Args:
            X: Features of each pair's first and second item; or, with ``items``, their rows in it.
            y: 1 where the first was chosen, 0 the second, 0.5 a tie; fractions between are shares of annotators.
            groups: Prompt group of each pair; each pair its own if None.
            sample_weight: Weight of each pair; only ratios matter.
            items: Features of all items, (item, *shape).

        Raises:
            ValueError: Shapes that do not fit, features that are not finite, labels outside [0, 1], an unknown loss, or
                fewer than 2 prompt groups.
        """
        from probing.probes._heads import LOSSES
        from probing.probes._training import network_margins, train

        if self.loss not in LOSSES:
            raise ValueError(f"Unknown loss {self.loss!r}; known are {', '.join(LOSSES)}.")
        rows, items, y, groups, weights = _check(X, y, groups, sample_weight, items)
        self.shape_ = tuple(items.shape[1:])
        self.n_features_in_ = math.prod(self.shape_)
        training, validation = self._split(groups)
        self._standardise(items, np.unique(rows[training]))
        trained = train(self, self._head(self.shape_), items, rows, y, weights, training, validation)
        self.network_, self.validation_loss_, self.epochs_ = trained
        margins = network_margins(self, self.network_, items, rows[validation], "cpu").numpy()
        self.cv_accuracy_ = float(np.mean([accuracy_of(m, y[validation], weights[validation]) for m in margins]))
        self.cv_margins_ = np.full(len(y), np.nan)
        self.cv_margins_[validation] = margins.mean(axis=0)
        self.alpha_, self.scaling_ = float("nan"), "standard"
        return self

    def decision_function(self, X: ItemFeatures) -> Float[np.ndarray, " row"]:
        """Return the rewards of items (row, *shape), averaged over seeds."""
        rewards: Float[np.ndarray, " row"] = self.decision_functions(X).mean(axis=1)
        return rewards

    def decision_functions(self, X: ItemFeatures) -> Float[np.ndarray, "row seed"]:
        """Return the rewards of items (row, *shape), one column per seed.

        Raises:
            ValueError: Features of another shape than those of the training.
        """
        from probing.probes._training import network_rewards

        check_is_fitted(self)
        if tuple(X.shape[1:]) != self.shape_:
            raise ValueError(
                f"Got features of shape {tuple(X.shape)}, expected (row, {', '.join(map(str, self.shape_))}); "
                f"score features of the array that the probe was fitted on."
            )
        return network_rewards(self, self.network_, X)

    def fit_pairs(
        self,
        items: Float[np.ndarray, "item *shape"],
        rows: Int[np.ndarray, "pair 2"],
        y: Float[np.ndarray, " pair"],
        groups: ArrayLike | None = None,
        sample_weight: Real[np.ndarray, " pair"] | None = None,
    ) -> NeuralProbe:
        """Train on pairs of items; see :meth:`probing.probes.Probe.fit_pairs`."""
        return self.fit(rows, y, groups, sample_weight, items=self._arrange(items))

    def pair_margins(
        self, items: Float[np.ndarray, "item *shape"], rows: Int[np.ndarray, "pair 2"]
    ) -> Float[np.ndarray, "pair seed"]:
        """Return the margin of each pair, one column per seed; each item is scored once."""
        used, inverse = np.unique(rows.T, return_inverse=True)
        first, second = self.decision_functions(self._arrange(items)[used])[inverse.reshape(2, -1)]
        margins: Float[np.ndarray, "pair seed"] = first - second
        return margins

    def rewards(self, items: Float[np.ndarray, "item *shape"]) -> Float[np.ndarray, " item"]:
        """Return the reward of each item, averaged over seeds."""
        return self.decision_function(self._arrange(items))

    def _split(
        self, groups: Shaped[np.ndarray, " pair"]
    ) -> tuple[Int[np.ndarray, " training"], Int[np.ndarray, " validation"]]:
        if len(np.unique(groups)) < 2:
            raise ValueError("Got 1 prompt group, expected at least 2 to set one aside for stopping; use more prompts.")
        splitter = GroupShuffleSplit(1, test_size=self.validation, random_state=self.seed)
        training, validation = next(splitter.split(groups, groups=groups))
        check_apart(groups[training], groups[validation], "training", "validation")
        return training, validation

    def _standardise(self, items: ItemFeatures, rows: Int[np.ndarray, " row"]) -> None:
        """Compute each channel's mean and deviation over the items (and tokens), in one pass over chunks of rows."""
        count, mean, squared = 0, np.zeros(()), np.zeros(())
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            values = np.asarray(items[rows[start : start + _ROWS_AT_ONCE]], dtype=np.float64)
            values = values.reshape(-1, values.shape[-1])
            values = values[(values != 0).any(axis=1)] if len(self.shape_) > 1 else values
            if not np.isfinite(values).all():
                raise ValueError("Got features that are not finite, expected numbers; extract them again in float32.")
            # Combine means and squared deviations of two parts (Chan et al. 1983).
            new, total = values.mean(axis=0), count + len(values)
            shift = new - mean
            squared = squared + ((values - new) ** 2).sum(axis=0) + shift**2 * count * len(values) / total
            mean, count = mean + shift * len(values) / total, total
        deviation = np.sqrt(squared / count)
        self.mean_ = np.asarray(mean, dtype=np.float32)
        self.scale_ = np.where(deviation > 0, deviation, 1.0).astype(np.float32)


@dataclass(eq=False, repr=False)
class MLPProbe(NeuralProbe):
    """An MLP from features to a reward.

    With ``hidden=(1024, 1024)`` on concatenated blocks it is the frozen-backbone head of the DiT-Reward paper. The
    paper does not state the activation; here it is GELU. Further arguments are those of :class:`NeuralProbe`.

    Args:
        hidden: Widths of the hidden layers.
    """

    hidden: Sequence[int] = (128,)

    def _head(self, shape: tuple[int, ...]) -> BuildHead:
        from probing.probes._heads import MLPHead

        return lambda generators: MLPHead(generators, shape, self.hidden)

    def _arrange(self, items: Shaped[np.ndarray, "item *shape"]) -> Shaped[np.ndarray, "item channel"]:
        return items.reshape(len(items), -1)


@dataclass(eq=False, repr=False)
class AttentionProbe(NeuralProbe):
    """A few query tokens that attend to stored tokens (``grid4`` or ``tokens``), of one or several streams and blocks.

    Tokens of several sources are concatenated, and each source has a learned embedding. A token whose features are all
    exactly zero is padding and is masked. Further arguments are those of :class:`NeuralProbe`.

    Args:
        queries: Number of query tokens.
        width: Width of queries, keys and values.
        heads: Attention heads, a divisor of ``width``.
        sources: Number of tokens of each source, in order; all tokens are one source if None.
        sigmas: Noise level of each source, for ``by_noise``.
        by_noise: Train on the tokens of one noise level at a time, drawn anew for each pair and step, with the variance
            2σ² + 0.05 of each reward in Thurstone's model (DiNa-LRM, arXiv 2602.11146); with the loss ``fidelity``
            only. Rewards come from the tokens of all levels together.
    """

    queries: int = 4
    width: int = 64
    heads: int = 4
    sources: Sequence[int] | None = None
    sigmas: Sequence[float] | None = None
    by_noise: bool = False

    def _head(self, shape: tuple[int, ...]) -> BuildHead:
        from probing.probes._heads import AttentionHead

        if len(shape) != 2:
            raise ValueError(
                f"Got items of shape {shape}, expected (token, channel); extract the reduction grid4 or tokens."
            )
        sources = (shape[0],) if self.sources is None else tuple(self.sources)
        if sum(sources) != shape[0]:
            raise ValueError(
                f"Got sources of {sources} tokens, expected {shape[0]} in all; count each source's tokens."
            )
        if self.width % self.heads:
            raise ValueError(f"Got width {self.width} and {self.heads} heads; make the width a multiple of the heads.")
        return lambda generators: AttentionHead(generators, shape, self.queries, self.width, self.heads, sources)

    def _levels(self) -> list[NoiseLevel]:
        if not self.by_noise:
            return []
        if self.loss != "fidelity":
            raise ValueError(
                f"Got by_noise with the loss {self.loss!r}, expected fidelity: its variance is Thurstone's."
            )
        if self.sources is None or self.sigmas is None or len(self.sources) != len(self.sigmas):
            raise ValueError("Got by_noise without the noise level of each source; give sources and sigmas, one each.")
        of_token = np.repeat(np.asarray(self.sigmas, dtype=np.float64), self.sources)
        return [NoiseLevel(of_token != s, math.sqrt(2 * s**2 + 0.05)) for s in sorted(set(of_token.tolist()))]

    def _arrange(self, items: Shaped[np.ndarray, "item *shape"]) -> Shaped[np.ndarray, "item *arranged"]:
        return items if items.ndim < 3 else items.reshape(len(items), -1, items.shape[-1])


def _check(
    X: Shaped[np.ndarray, "pair 2 *shape"],
    y: Float[np.ndarray, " pair"],
    groups: ArrayLike | None,
    sample_weight: ArrayLike | None,
    items: ItemFeatures | None,
) -> tuple[
    Int[np.ndarray, "pair 2"],
    ItemFeatures,
    Float[np.ndarray, " pair"],
    Shaped[np.ndarray, " pair"],
    Float[np.ndarray, " pair"],
]:
    """Check training data, and bring both forms of input to rows of items."""
    X, y = np.asarray(X), np.asarray(y, dtype=np.float64)
    if items is None:
        if X.ndim < 3 or X.shape[1] != 2:
            raise ValueError(f"Got X of shape {X.shape}, expected (pair, 2, …); give both items of each pair.")
        items = X.reshape(-1, *X.shape[2:])
        rows = np.arange(2 * len(X)).reshape(-1, 2)
    else:
        if X.ndim != 2 or X.shape[1] != 2 or not np.issubdtype(X.dtype, np.integer):
            raise ValueError(f"Got X of shape {X.shape} and {X.dtype}, expected (pair, 2) row numbers of items.")
        if len(X) and not 0 <= X.min() <= X.max() < items.shape[0]:
            raise ValueError(f"Got rows from {X.min()} to {X.max()}, expected 0 to {items.shape[0] - 1}.")
        rows = X
    groups = np.arange(len(rows)) if groups is None else np.asarray(groups)
    for name, array in (("y", y), ("groups", groups)):
        if array.shape != (len(rows),):
            raise ValueError(f"Got {name} of shape {array.shape}, expected ({len(rows)},); give one per pair.")
    check_choices(y)
    return rows, items, y, groups, check_weights(sample_weight, len(rows))
