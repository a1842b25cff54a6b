"""The ridge probe: least squares in closed form; one decomposition gives every strength and every left-out prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int, Real
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from probing.probes._base import LinearProbe, accuracy_of, check_choices, check_training
from probing.probes._logistic import ALPHAS
from probing.probes._rotation import Rotation, rotate
from probing.probes._scalings import SCALINGS, find_scaling
from probing.probes._selection import check_alphas, grouped_folds, largest_best

Target = Literal["choices", "scores", "ranks"]


@dataclass(eq=False, repr=False)
class RidgeProbe(LinearProbe):
    """Ridge regression on standardised features, its strength chosen by leaving prompt groups out.

    It minimises over w, with weights u_i that sum to 1,

        sum_i u_i (t_i − s_i'w)² + alpha · ||w||²

    where s is x / scale, and scale each channel's root mean square. ``target`` defines x and t:

    - ``choices``: x is the difference of a pair's features, t is 2y − 1: +1 where the first was chosen, −1 the second.
    - ``scores``: x are the features of an item and t its score, both minus their prompt group's mean (only differences
      within a prompt are preferences).
    - ``ranks``: like ``scores``, with t the item's rank in its prompt group, from −1 (lowest) to 1.

    All strengths come from one eigendecomposition of the Gram matrix. Leaving out group g changes its residuals to
    (I − H_gg)⁻¹ r_g, where H_gg is its block of the smoother (Golub, Heath and Wahba 1979 for single rows): no refit.
    Centring by group couples no two groups, so the residuals are exactly those of refits to the other rows with the
    same weights; they share ``scale``, which does not depend on labels.

    Args:
        alphas: Grid of strengths, each above 0.
        target: Target of the regression, see above.
        folds: Number of folds of whole groups; None leaves out one prompt group at a time.
        scaling: Name in :data:`probing.probes.SCALINGS`, or ``auto``: the one with the lowest out-of-fold error.

    Attributes:
        coef_: (channel,), for features in their own units.
        scale_: Divisor of each channel, (channel,).
        scaling_: Chosen scaling.
        alpha_: Chosen strength: the largest one of equally good strengths.
        cv_scores_: Out-of-fold mean squared error of each of ``alphas``.
        cv_margins_: Out-of-fold predictions at ``alpha_``, (row,); 0 for rows without weight.
        cv_accuracy_: Out-of-fold accuracy at ``alpha_``: over pairs for ``choices``; for the other targets, over all
            pairs of items within a group whose targets differ.
        n_features_in_: Number of channels.
    """

    alphas: Sequence[float] = ALPHAS
    target: Target = "choices"
    folds: int | None = None
    scaling: str = "standard"

    def fit(
        self,
        X: Float[np.ndarray, "row channel"],
        y: Float[np.ndarray, " row"],
        groups: ArrayLike | None = None,
        sample_weight: Real[np.ndarray, " row"] | None = None,
    ) -> RidgeProbe:
        """Choose the strength and fit to all rows.

        Args:
            X: Differences of pairs, or features of items; see ``target``.
            y: Choices in [0, 1], or scores of items (their ranks are taken within groups).
            groups: Prompt group of each row; each pair its own if None.
            sample_weight: Weight of each row; only ratios matter.

        Raises:
            ValueError: Shapes that do not fit, values that are not finite, an unknown target, choices outside [0, 1],
                fewer groups than folds, or items without groups.
        """
        if self.target not in get_args(Target):
            raise ValueError(f"Unknown target {self.target!r}; known are {', '.join(get_args(Target))}.")
        pairs = self.target == "choices"
        if not pairs and groups is None:
            raise ValueError(f"Got no groups, and {self.target} are compared within prompts; give each item's prompt.")
        X, y, groups, weights = check_training(self, X, y, groups, sample_weight)
        alphas = check_alphas(self.alphas)
        _, members = np.unique(groups, return_inverse=True)
        if pairs:
            check_choices(y)
            targets = 2 * y - 1
        else:
            targets = _ranks(y, members) if self.target == "ranks" else y
            X, targets = (_minus_group_means(values, members, weights) for values in (X, targets))
        root_weights = np.sqrt(len(y) * weights)
        weighted_targets = targets * root_weights
        if self.folds is None:
            fold_of = members
            if fold_of.max() < 1:
                raise ValueError("Got 1 prompt group, expected at least 2 to leave one out; use more prompts.")
        else:
            fold_of = grouped_folds(groups, self.folds)
        lowest = np.inf
        for name in SCALINGS if self.scaling == "auto" else (self.scaling,):
            scaling = find_scaling(name, X, weights)
            rotation = rotate(scaling.apply(X) * root_weights[:, None])
            predicted = _left_out(rotation, weighted_targets, alphas, fold_of)
            scores = np.mean((weighted_targets[:, None] - predicted) ** 2, axis=0)
            best = largest_best(scores, alphas, slack=1e-12 * float(scores.min()))
            if scores[best] < lowest:
                lowest = scores[best]
                chosen = scaling, rotation, predicted[:, best]
                self.scaling_, self.alpha_, self.cv_scores_ = name, float(alphas[best]), scores
        scaling, rotation, out = chosen
        self.cv_accuracy_ = accuracy_of(out, y, weights) if pairs else _accuracy_within(out, weighted_targets, members)
        # A row without weight has no prediction.
        self.cv_margins_ = np.divide(out, root_weights, out=np.zeros_like(out), where=root_weights > 0)
        projected = rotation.rotated.T @ weighted_targets / len(y)
        self.scale_ = scaling.scale
        self.coef_ = scaling.back(rotation.basis @ (projected / (rotation.spectrum + self.alpha_)))
        return self


def _left_out(
    rotation: Rotation,
    targets: Float[np.ndarray, " row"],
    alphas: Float[np.ndarray, " alpha"],
    fold_of: Int[np.ndarray, " row"],
) -> Float[np.ndarray, "row alpha"]:
    """Predict every row by the fit without its fold, for each strength.

    Small folds use their block of the smoother; large folds, whose block would be larger than the Gram matrix, use the
    Gram matrix minus theirs.
    """
    z, rows = rotation.rotated, len(targets)
    order = np.argsort(fold_of, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(fold_of[order]) > 0])
    members = np.split(order, starts[1:])
    predicted = np.empty((rows, len(alphas)))
    projected = z.T @ targets / rows
    by_size: dict[int, list[np.ndarray]] = {}
    for fold in members:
        if len(fold) <= z.shape[1]:
            by_size.setdefault(len(fold), []).append(fold)
        else:
            predicted[fold] = _refitted(rotation, targets, alphas, fold)
    # A block of b rows costs b² products of the rank; chunks keep the arrays near 64 MB.
    for size, folds in by_size.items():
        step = max(1, int(8e6 / (size * max(size, z.shape[1]))))
        for start in range(0, len(folds), step):
            chunk = np.stack(folds[start : start + step])
            block = z[chunk]
            for column, alpha in enumerate(alphas):
                shrunk = block / (rotation.spectrum + alpha)
                residual = targets[chunk] - shrunk @ projected
                if size == 1:
                    leverage = np.einsum("gbr,gbr->gb", shrunk, block) / rows
                    out = residual / (1 - leverage)
                else:
                    smoother = shrunk @ block.transpose(0, 2, 1) / rows
                    out = np.linalg.solve(np.eye(size) - smoother, residual[..., None])[..., 0]
                predicted[chunk, column] = targets[chunk] - out
    return predicted


def _refitted(
    rotation: Rotation,
    targets: Float[np.ndarray, " row"],
    alphas: Float[np.ndarray, " alpha"],
    fold: Int[np.ndarray, " held_out"],
) -> Float[np.ndarray, "held_out alpha"]:
    z, rows = rotation.rotated, len(targets)
    out = z[fold]
    spectrum, basis = scipy.linalg.eigh(np.diag(rotation.spectrum) - out.T @ out / rows)
    projected = basis.T @ ((z.T @ targets - out.T @ targets[fold]) / rows)
    predicted: Float[np.ndarray, "held_out alpha"]
    predicted = out @ basis @ (projected[:, None] / (np.maximum(spectrum, 0)[:, None] + alphas))
    return predicted


def _minus_group_means(
    values: Float[np.ndarray, "row *channel"], members: Int[np.ndarray, " row"], weights: Float[np.ndarray, " row"]
) -> Float[np.ndarray, "row *channel"]:
    flat = values.reshape(len(values), -1)
    sums = np.zeros((members.max() + 1, flat.shape[1]))
    np.add.at(sums, members, weights[:, None] * flat)
    totals = np.bincount(members, weights)
    means = sums / np.where(totals > 0, totals, 1.0)[:, None]
    centred: Float[np.ndarray, "row *channel"] = (flat - means[members]).reshape(values.shape)
    return centred


def _ranks(y: Float[np.ndarray, " row"], members: Int[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    ranks = np.zeros(len(y))
    for group in range(members.max() + 1):
        rows = np.flatnonzero(members == group)
        if len(rows) > 1:
            ranks[rows] = 2 * (rankdata(y[rows]) - 1) / (len(rows) - 1) - 1
    return ranks


def _accuracy_within(
    predicted: Float[np.ndarray, " row"], targets: Float[np.ndarray, " row"], members: Int[np.ndarray, " row"]
) -> float:
    """Return the share of the pairs of items with different targets within a group that are ordered correctly."""
    correct, pairs = 0.0, 0
    order = np.argsort(members, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(members[order])) + 1):
        first, second = np.triu_indices(len(rows), 1)
        expected = np.sign(targets[rows][first] - targets[rows][second])
        actual = np.sign(predicted[rows][first] - predicted[rows][second])
        correct += float(np.where(actual == 0, 0.5, actual == expected)[expected != 0].sum())
        pairs += int((expected != 0).sum())
    return correct / pairs if pairs else float("nan")
