"""The logistic probe: Bradley–Terry on feature differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int, Real
from numpy.typing import ArrayLike

from probing.probes._base import LinearProbe, accuracy_of, check_choices, check_training, check_weights, log_loss
from probing.probes._disk import DiskRows, blocks_of, difference_rows
from probing.probes._scalings import SCALINGS, find_scaling
from probing.probes._selection import FOLDS, check_alphas, grouped_folds, largest_best
from probing.probes._solver import Design, LazyWeights, select, solve, zeros

ALPHAS: tuple[float, ...] = tuple(float(alpha) for alpha in np.logspace(-4, 1, 11))
"""The default grid of L2 strengths: half decades from 1e-4 to 10."""

_SELECTION_TOLERANCE = 1e-9
_FINAL_TOLERANCE = 1e-14
_EQUALLY_GOOD = 1e-5
"""Difference of log-losses, in nats, below which two strengths are equally good."""


@dataclass(eq=False, repr=False)
class LogisticProbe(LinearProbe):
    """Logistic regression without intercept on standardised feature differences (Bradley–Terry).

    With s_i = (x_i first − x_i second) / scale, it minimises over w

        mean_i [ log(1 + exp(s_i'w)) − y_i · s_i'w ] + alpha/2 · ||w||²

    that is, the mean loss per pair in nats plus the penalty, so alpha is comparable between numbers of pairs
    (scikit-learn's C is 1 / (pairs · alpha)); sample weights make all means weighted. The reward of an item
    with features x is x'coef_, coef_ = w / scale; without an intercept the margin of a pair is the difference of two
    rewards, and swapping its sides negates it.

    ``scale`` is each channel's root mean square of the training differences, or another scaling. It does not depend
    on which side is first, and nothing is centred, since a mean would. A channel that never differs has coefficient 0.

    Cross-validation over folds of whole prompt groups chooses alpha by the mean out-of-fold log-loss over pairs: the
    largest one of equally good strengths. The folds share ``scale``, which does not depend on choices.
    ``scaling="auto"`` chooses among the scalings by the same log-loss.

    Args:
        alphas: Grid of strengths, each above 0.
        folds: Number of folds.
        scaling: Name in :data:`probing.probes.SCALINGS`, or ``auto``.
        device: Device of the matrix products over folds and strengths: ``cpu``, or in torch's notation. The optimum is
            the same.

    Attributes:
        coef_: (channel,), for features in their own units.
        scale_: Divisor of each channel, (channel,).
        scaling_: Chosen scaling.
        alpha_: Chosen strength.
        cv_scores_: Out-of-fold log-loss of each of ``alphas``, in nats; log 2 is chance.
        cv_margins_: Out-of-fold margins at ``alpha_``, (pair,).
        cv_accuracy_: Out-of-fold accuracy at ``alpha_`` over untied pairs, a predicted tie counting one half; a soft
            label counts as its likelier side. NaN if all pairs are ties.
        n_features_in_: Channels.
    """

    alphas: Sequence[float] = ALPHAS
    folds: int = FOLDS
    scaling: str = "standard"
    device: str = "cpu"

    def fit(
        self,
        X: Float[np.ndarray, "pair channel"],
        y: Float[np.ndarray, " pair"],
        groups: ArrayLike | None = None,
        sample_weight: Real[np.ndarray, " pair"] | None = None,
    ) -> LogisticProbe:
        """Choose the strength by grouped cross-validation and fit to all pairs.

        Args:
            X: Features of the first item minus those of the second.
            y: 1 where the first was chosen, 0 the second, 0.5 a tie; fractions between are shares of annotators.
            groups: Prompt group of each pair; each pair its own if None.
            sample_weight: Weight of each pair, such as an annotator's confidence; only ratios matter.

        Raises:
            ValueError: Shapes that do not fit, values that are not finite, labels outside [0, 1], or too few groups.
        """
        X, y, groups, pair_weights = check_training(self, X, y, groups, sample_weight)
        check_choices(y)
        fold_of = grouped_folds(groups, self.folds)
        # Sort by fold: the solver skips contiguous rows without weight.
        order = np.argsort(fold_of, kind="stable")
        return self._fit_in_order(X[order], y[order], pair_weights[order], fold_of[order], order)

    def fit_pairs(
        self,
        items: Float[np.ndarray, "item *shape"] | DiskRows,
        rows: Int[np.ndarray, "pair 2"],
        y: Float[np.ndarray, " pair"],
        groups: ArrayLike | None = None,
        sample_weight: Real[np.ndarray, " pair"] | None = None,
    ) -> LogisticProbe:
        """Fit to the differences of pairs of items; see :meth:`Probe.fit_pairs`.

        Of items on disk, the differences are written to disk too, and every product with them is a pass over blocks:
        the same problem, rounded to single precision once more where a difference is taken.
        """
        if not isinstance(items, DiskRows):
            super().fit_pairs(items, rows, y, groups, sample_weight)
            return self
        if self.scaling == "auto":
            raise ValueError(
                "auto tries whiten, which rotates features, and these do not fit into memory; name a scaling."
            )
        y = np.asarray(y, dtype=np.float64)
        members = len(y) if groups is None else len(np.asarray(groups))
        if not len(y) == len(rows) == members or len(y) < 2:
            raise ValueError(
                f"Got {len(rows)} pairs, {len(y)} labels and {members} groups, expected the same number, at least 2."
            )
        # As little as possible of each pair stays in memory while the solver works.
        equal = np.broadcast_to(np.float64(1 / len(y)), y.shape)
        weights = equal if sample_weight is None else check_weights(sample_weight, len(y))
        check_choices(y)
        fold_of = grouped_folds(np.arange(len(y)) if groups is None else np.asarray(groups), self.folds)
        order = np.argsort(fold_of, kind="stable")
        fold_of = fold_of[order].astype(np.int32)
        if sample_weight is not None:
            weights = weights[order] / weights.sum()
        X = difference_rows(items, rows, order)
        self.n_features_in_ = X.shape[1]
        return self._fit_in_order(X, y[order], weights, fold_of, order)

    def _fit_in_order(
        self,
        X: Float[np.ndarray, "pair channel"] | DiskRows,
        y: Float[np.ndarray, " pair"],
        pair_weights: Float[np.ndarray, " pair"],
        fold_of: Int[np.ndarray, " pair"],
        order: Int[np.ndarray, " pair"],
    ) -> LogisticProbe:
        """Choose the strength and fit to pairs that are sorted by fold; ``order`` has the place of each before."""
        alphas = check_alphas(self.alphas)
        weights = self._fold_weights(fold_of, pair_weights, len(alphas))
        ends = np.searchsorted(fold_of, np.arange(self.folds + 1)).tolist()

        lowest = np.inf
        for name in SCALINGS if self.scaling == "auto" else (self.scaling,):
            scaling = find_scaling(name, X, pair_weights)
            design = Design.prepare(scaling.apply(X), self.device)
            coefficients = solve(design, y, weights, np.tile(alphas, self.folds), tolerance=_SELECTION_TOLERANCE)
            by_fold = coefficients.reshape(-1, self.folds, len(alphas))
            margins, scores = zeros(design.rows, len(alphas), np.float64), np.zeros(len(alphas))
            for fold, (start, stop) in enumerate(pairwise(ends)):
                for rows in blocks_of(design.rows, start, stop, len(alphas)):
                    held_out = design.rows[rows] @ by_fold[:, fold]
                    scores += pair_weights[rows] @ log_loss(held_out, y[rows, None])
                    margins[rows] = held_out
            best = largest_best(scores, alphas, slack=_EQUALLY_GOOD)
            if scores[best] < lowest:
                lowest = scores[best]
                chosen = scaling, design, by_fold[:, :, best].mean(1, keepdims=True)
                self.scaling_, self.alpha_, self.cv_scores_ = name, float(alphas[best]), scores
                out_of_fold = select(margins, np.array([best]))[:][:, 0]
        self.cv_accuracy_ = accuracy_of(out_of_fold, y, pair_weights)
        self.cv_margins_ = np.empty_like(out_of_fold)
        self.cv_margins_[order] = out_of_fold
        del out_of_fold

        scaling, design, beginning = chosen
        alpha = np.array([self.alpha_])
        every_pair = LazyWeights(lambda rows: pair_weights[rows, None], len(y), np.arange(1))
        final = solve(design, y, every_pair, alpha, start=beginning, tolerance=_FINAL_TOLERANCE)
        self.scale_ = scaling.scale
        self.coef_ = scaling.back(design.coefficients(final)[:, 0])
        return self

    def _fold_weights(
        self, fold_of: Int[np.ndarray, " pair"], pair_weights: Float[np.ndarray, " pair"], strengths: int
    ) -> LazyWeights:
        """One column for each (fold, strength); the pairs that a fold holds out have no weight in its columns."""
        by_fold = np.bincount(fold_of, pair_weights, self.folds)
        others = by_fold @ (1 - np.eye(self.folds))
        if not others.all():
            raise ValueError("Got sample weights that are above 0 in one fold alone; give weight to more prompts.")

        def compute(rows: slice) -> Float[np.ndarray, "row column"]:
            training = (fold_of[rows, None] != np.arange(self.folds)) * pair_weights[rows, None]
            return np.repeat(training / others, strengths, axis=1)

        return LazyWeights(compute, len(fold_of), np.arange(self.folds * strengths))
