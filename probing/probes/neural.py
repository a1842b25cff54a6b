"""Probes that are small networks: an MLP on reduced features, attention over kept tokens."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.model_selection import GroupShuffleSplit
from sklearn.utils.validation import check_is_fitted

from probing.probes.base import accuracy_of, check_shares
from probing.probes.selection import check_apart

if TYPE_CHECKING:
    import torch

    from probing.probes.heads import AttentionHead, MLPHead

_ROWS_AT_ONCE = 1024


class Rows(Protocol):
    """Features by row, in memory or not: a NumPy array, a memory map, anything that takes sorted row numbers."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __getitem__(self, rows: Any, /) -> Any: ...


class NeuralProbe(BaseEstimator, ABC):
    """A network that scores single items, trained on pairs by the difference of its two rewards.

    Features are standardised by each channel's mean and deviation over the items of the training part. A validation
    part of whole prompt groups is set aside; each seed keeps the weights of the epoch with the lowest validation loss
    and stops ``patience`` epochs later. Features are read batch by batch, so they need not fit in memory.

    Attributes:
        cv_accuracy_: Accuracy on the validation part, mean over seeds.
        validation_margins_: Margins of the validation part, mean over seeds; NaN for the pairs of the training part.
        validation_loss_: Lowest validation loss of each seed.
        epochs_: Epoch that each seed kept, from 1.
        n_features_in_: Numbers an item.
    """

    loss: str
    seeds: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int
    validation: float
    device: str
    seed: int

    @abstractmethod
    def _build(self, generators: Sequence[torch.Generator], shape: tuple[int, ...]) -> MLPHead | AttentionHead: ...

    def fit(
        self,
        X: Float[np.ndarray, "pair 2 *shape"] | Int[np.ndarray, "pair 2"],
        y: Float[np.ndarray, " pair"],
        groups: ArrayLike | None = None,
        sample_weight: Float[np.ndarray, " pair"] | None = None,
        items: Rows | None = None,
    ) -> NeuralProbe:
        """Train all seeds.

        Args:
            X: Features of each pair's first and second item; or, with ``items``, their rows in it.
            y: 1 where the first was chosen, 0 the second, 0.5 a tie; fractions between are shares of annotators.
            groups: Prompt group of each pair; each pair its own if not given.
            sample_weight: How much each pair counts; only ratios matter.
            items: Features of all items, (item, *shape).

        Raises:
            ValueError: Shapes that do not fit, features that are not finite, labels outside [0, 1], an unknown loss, or
                fewer than 2 prompt groups.
        """
        import torch

        from probing.probes.heads import LOSSES

        if self.loss not in LOSSES:
            raise ValueError(f"Unknown loss {self.loss!r}; known are {', '.join(LOSSES)}.")
        rows, items, y, groups, weights = _check(X, y, groups, sample_weight, items)
        self.shape_ = tuple(items.shape[1:])
        self.n_features_in_ = math.prod(self.shape_)
        train, held_out = self._split(groups)
        self._standardise(items, np.unique(rows[train]))
        generators = [torch.Generator().manual_seed(self.seed + place) for place in range(self.seeds)]
        device = self._device()
        network = self._build(generators, self.shape_).to(device)
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        orders = [np.random.default_rng([self.seed + place, 1]) for place in range(self.seeds)]
        best = np.full(self.seeds, np.inf)
        kept, self.epochs_ = copy.deepcopy(network.state_dict()), np.zeros(self.seeds, dtype=int)
        for epoch in range(1, self.epochs + 1):
            for batch in self._batches(train, orders):
                margins = self._margins(network, items, rows[batch], device)
                target, weight = (torch.from_numpy(v[batch]).float().to(device) for v in (y, weights))
                # The sum over seeds gives each the gradient of its own mean.
                means = (weight * LOSSES[self.loss](margins, target)).sum(1) / weight.sum(1).clamp(min=1e-12)
                optimizer.zero_grad(set_to_none=True)
                means.sum().backward()
                optimizer.step()
            margins = self._all_margins(network, items, rows[held_out], device)
            targets = torch.from_numpy(y[held_out]).float().expand(self.seeds, -1)
            losses = LOSSES[self.loss](margins, targets).numpy() @ weights[held_out] / weights[held_out].sum()
            better = losses < best - 1e-6
            for name, parameter in network.state_dict().items():
                kept[name][better] = parameter[torch.from_numpy(better)]
            best, self.epochs_ = np.where(better, losses, best), np.where(better, epoch, self.epochs_)
            if (epoch - self.epochs_ >= self.patience).all():
                break
        network.load_state_dict(kept)
        self.network_ = network.cpu().eval()
        self.validation_loss_ = best
        final = self._all_margins(self.network_, items, rows[held_out], torch.device("cpu")).numpy()
        self.cv_accuracy_ = float(np.mean([accuracy_of(m, y[held_out], weights[held_out]) for m in final]))
        self.validation_margins_ = np.full(len(y), np.nan)
        self.validation_margins_[held_out] = final.mean(axis=0)
        return self

    def decision_function(self, X: Rows) -> Float[np.ndarray, " row"]:
        """Give the rewards of items (row, *shape), averaged over seeds."""
        return self.decision_functions(X).mean(axis=1)

    def decision_functions(self, X: Rows) -> Float[np.ndarray, "row seed"]:
        """Give the rewards of items (row, *shape), of each seed by itself.

        Raises:
            ValueError: Features of another shape than those of the training.
        """
        import torch

        check_is_fitted(self)
        if tuple(X.shape[1:]) != self.shape_:
            raise ValueError(
                f"Got features of shape {tuple(X.shape)}, expected (row, {', '.join(map(str, self.shape_))}); "
                f"score features of the array that the probe was fitted on."
            )
        parts = []
        with torch.inference_mode():
            for start in range(0, X.shape[0], _ROWS_AT_ONCE):
                here = np.arange(start, min(start + _ROWS_AT_ONCE, X.shape[0]))
                features, padding = self._read(X, here, torch.device("cpu"))
                shared = features.expand(self.seeds, *features.shape), padding.expand(self.seeds, *padding.shape)
                parts.append(self.network_(*shared).numpy().T)
        return np.concatenate(parts).astype(np.float64)

    def _device(self) -> torch.device:
        import torch

        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def _split(self, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(np.unique(groups)) < 2:
            raise ValueError("Got 1 prompt group, expected at least 2 to set one aside for stopping; use more prompts.")
        splitter = GroupShuffleSplit(1, test_size=self.validation, random_state=self.seed)
        train, held_out = next(splitter.split(groups, groups=groups))
        check_apart(groups[train], groups[held_out], "training", "validation")
        return train, held_out

    def _standardise(self, items: Rows, rows: np.ndarray) -> None:
        """Find each channel's mean and deviation over the items (and tokens), in one pass and two chunks' memory."""
        count, mean, squared = 0, 0.0, 0.0
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            values = np.asarray(items[rows[start : start + _ROWS_AT_ONCE]], dtype=np.float64)
            values = values.reshape(-1, values.shape[-1])
            values = values[(values != 0).any(axis=1)] if len(self.shape_) > 1 else values
            if not np.isfinite(values).all():
                raise ValueError("Got features that are not finite, expected numbers; extract them again in float32.")
            # Chan et al. 1983: means and squared deviations of two parts put together.
            new, total = values.mean(axis=0), count + len(values)
            shift = new - mean
            squared = squared + ((values - new) ** 2).sum(axis=0) + shift**2 * count * len(values) / total
            mean, count = mean + shift * len(values) / total, total
        deviation = np.sqrt(squared / count)
        self.mean_ = np.asarray(mean, dtype=np.float32)
        self.scale_ = np.where(deviation > 0, deviation, 1.0).astype(np.float32)

    def _batches(self, train: np.ndarray, orders: list[np.random.Generator]) -> Iterator[Int[np.ndarray, "seed pair"]]:
        shuffled = np.stack([order.permutation(train) for order in orders])
        for start in range(0, shuffled.shape[1], self.batch_size):
            yield shuffled[:, start : start + self.batch_size]

    def _read(self, items: Rows, rows: np.ndarray, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Read rows, each once and in order, standardise, and find padding: tokens that are all zeros."""
        import torch

        distinct, inverse = np.unique(rows, return_inverse=True)
        raw = np.asarray(items[distinct], dtype=np.float32)
        features = torch.from_numpy((raw - self.mean_) / self.scale_).to(device)
        padding = torch.from_numpy((raw == 0).all(axis=-1)).to(device)
        where = torch.from_numpy(inverse.reshape(rows.shape)).to(device)
        return features[where], padding[where]

    def _margins(self, network, items: Rows, rows: Int[np.ndarray, "seed pair 2"], device) -> torch.Tensor:
        features, padding = self._read(items, rows, device)
        rewards = network(features.flatten(1, 2), padding.flatten(1, 2)).unflatten(1, (-1, 2))
        return rewards[..., 0] - rewards[..., 1]

    def _all_margins(self, network, items: Rows, rows: Int[np.ndarray, "pair 2"], device) -> torch.Tensor:
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                here = rows[start : start + _ROWS_AT_ONCE]
                parts.append(self._margins(network, items, np.broadcast_to(here, (self.seeds, *here.shape)), device))
        return torch.cat(parts, dim=1).cpu()


class MLPProbe(NeuralProbe):
    """An MLP from features to a reward.

    With ``hidden=(1024, 1024)`` on concatenated blocks it is the frozen-backbone head of the DiT-Reward paper, whose
    activation is not stated; ours is GELU.

    Args:
        hidden: Widths of the hidden layers.
        loss: ``bradley-terry``, or ``fidelity``: Thurstone's model with the fidelity loss.
        seeds: How many initial weights and orders of pairs are trained, at once.
        epochs: At most so many passes over the training part.
        batch_size: Pairs a step.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        patience: Epochs without a lower validation loss before a seed stops.
        validation: Share of the prompt groups that is set aside for stopping.
        device: ``auto``, or as torch names it.
        seed: Of everything random; seeds count up from it.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (128,),
        loss: str = "bradley-terry",
        seeds: int = 3,
        epochs: int = 100,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        patience: int = 5,
        validation: float = 0.15,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.loss = loss
        self.seeds = seeds
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.validation = validation
        self.device = device
        self.seed = seed

    def _build(self, generators: Sequence[torch.Generator], shape: tuple[int, ...]) -> MLPHead:
        from probing.probes.heads import MLPHead

        return MLPHead(generators, shape, self.hidden)


class AttentionProbe(NeuralProbe):
    """A few query tokens that attend to kept tokens (``grid4`` or ``tokens``), of one or several streams and blocks.

    Tokens of several sources stand one after another, and each source has its own learned mark. A token whose features
    are all exactly zero is padding and is not attended to.

    Args:
        queries: How many query tokens.
        width: Of queries, keys and values.
        heads: Attention heads, a divisor of ``width``.
        sources: Number of tokens of each source in turn; all tokens are one source if not given.
        loss: As of :class:`MLPProbe`, and so all that follows.
        seeds: Initial weights and orders trained at once.
        epochs: At most so many passes.
        batch_size: Pairs a step.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        patience: Epochs without gain before a seed stops.
        validation: Share of prompt groups set aside.
        device: ``auto``, or as torch names it.
        seed: Of everything random.
    """

    def __init__(
        self,
        queries: int = 4,
        width: int = 64,
        heads: int = 4,
        sources: Sequence[int] | None = None,
        loss: str = "bradley-terry",
        seeds: int = 3,
        epochs: int = 100,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        patience: int = 5,
        validation: float = 0.15,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        self.queries = queries
        self.width = width
        self.heads = heads
        self.sources = sources
        self.loss = loss
        self.seeds = seeds
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.validation = validation
        self.device = device
        self.seed = seed

    def _build(self, generators: Sequence[torch.Generator], shape: tuple[int, ...]) -> AttentionHead:
        from probing.probes.heads import AttentionHead

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
        return AttentionHead(generators, shape, self.queries, self.width, self.heads, sources)


def _check(X, y, groups, sample_weight, items) -> tuple[np.ndarray, Rows, np.ndarray, np.ndarray, np.ndarray]:
    """Bring both forms of input to rows of items."""
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
    weights = np.ones(len(rows)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    for name, array in (("y", y), ("groups", groups), ("sample_weight", weights)):
        if array.shape != (len(rows),):
            raise ValueError(f"Got {name} of shape {array.shape}, expected ({len(rows)},); give one a pair.")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError("Got sample weights that are negative, not finite or all zero, expected weights above zero.")
    check_shares(y)
    return rows, items, y, groups, weights
