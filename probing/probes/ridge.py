"""The ridge probe: least squares in closed form, every strength and every left-out prompt from one decomposition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import scipy.linalg
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from probing.probes.base import LinearProbe, accuracy_of, check_shares, check_training
from probing.probes.logistic import ALPHAS
from probing.probes.rotation import Rotation, rotate
from probing.probes.scalings import SCALINGS, find_scaling
from probing.probes.selection import check_alphas, grouped_folds, largest_best

Target = Literal["choices", "scores", "ranks"]


class RidgeProbe(LinearProbe):
    """Ridge regression on standardised features, its strength chosen by leaving prompt groups out.

    It minimises over w, with weights u_i that sum to 1,

        sum_i u_i (t_i − s_i'w)² + alpha · ||w||²

    where s is x / scale, and scale each channel's root mean square. What x and t are depends on ``target``:

    - ``choices``: x is the difference of a pair's features, t is 2y − 1: +1 where the first was chosen, −1 the second.
    - ``scores``: x are the features of an item and t its score, both less their prompt group's mean (only differences
      within a prompt are preferences).
    - ``ranks``: as scores, of each item's rank in its prompt group, from −1 (lowest) to 1.

    All strengths come from one eigendecomposition of the Gram matrix. Leaving out group g changes its residuals to
    (I − H_gg)⁻¹ r_g, where H_gg is its block of the smoother (Golub, Heath and Wahba 1979 for single rows): no refit.
    Centring by group couples no two groups, so the residuals are exactly those of refits to the other rows with their
    weights as they are; ``scale`` alone is shared, and it sees no labels.

    Args:
        alphas: Grid of strengths, each above 0.
        target: What it is regressed on.
        folds: None leaves out one prompt group at a time; a number, that many folds of whole groups.
        scaling: Of :data:`probing.probes.SCALINGS`, or ``auto``: the one with the lowest error out of fold.

    Attributes:
        coef_: (channel,), for features in their own units.
        scale_: What each channel is divided by, (channel,).
        scaling_: The scaling chosen.
        alpha_: The strength chosen; of equally good ones, the largest.
        cv_scores_: Mean squared error out of fold of each of ``alphas``.
        cv_margins_: Predictions out of fold at ``alpha_``, (row,); 0 for rows without weight.
        cv_accuracy_: Accuracy out of fold at ``alpha_``: of pairs for ``choices``; of all pairs of items within a group
            whose targets differ for the others.
        n_features_in_: Channels.
    """

    def __init__(
        self,
        alphas: Sequence[float] = ALPHAS,
        target: Target = "choices",
        folds: int | None = None,
        scaling: str = "standard",
    ) -> None:
        self.alphas = alphas
        self.target = target
        self.folds = folds
        self.scaling = scaling

    def fit(
        self,
        X: Float[np.ndarray, "row channel"],
        y: Float[np.ndarray, " row"],
        groups: ArrayLike | None = None,
        sample_weight: Float[np.ndarray, " row"] | None = None,
    ) -> RidgeProbe:
        """Choose the strength and fit to all rows.

        Args:
            X: Differences of pairs, or features of items; see ``target``.
            y: Choices in [0, 1], or scores of items (their ranks are taken within groups).
            groups: Prompt group of each row; each pair its own if not given.
            sample_weight: How much each row counts; only ratios matter.

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
            check_shares(y)
            targets = 2 * y - 1
        else:
            targets = _ranks(y, members) if self.target == "ranks" else y
            X, targets = (_less_group_means(values, members, weights) for values in (X, targets))
        rows_as = np.sqrt(len(y) * weights)
        rooted = targets * rows_as
        if self.folds is None:
            fold_of = members
            if fold_of.max() < 1:
                raise ValueError("Got 1 prompt group, expected at least 2 to leave one out; use more prompts.")
        else:
            fold_of = grouped_folds(groups, self.folds)
        lowest = np.inf
        for name in SCALINGS if self.scaling == "auto" else (self.scaling,):
            scaling = find_scaling(name, X, weights)
            rotation = rotate(scaling.apply(X) * rows_as[:, None])
            predicted = _left_out(rotation, rooted, alphas, fold_of)
            scores = np.mean((rooted[:, None] - predicted) ** 2, axis=0)
            best = largest_best(scores, alphas, slack=1e-12 * float(scores.min()))
            if scores[best] < lowest:
                lowest = scores[best]
                chosen = scaling, rotation, predicted[:, best]
                self.scaling_, self.alpha_, self.cv_scores_ = name, float(alphas[best]), scores
        scaling, rotation, out = chosen
        self.cv_accuracy_ = accuracy_of(out, y, weights) if pairs else _accuracy_within(out, rooted, members)
        # A row without weight has no part in the fit, and its prediction is lost with it.
        self.cv_margins_ = np.divide(out, rows_as, out=np.zeros_like(out), where=rows_as > 0)
        projected = rotation.rotated.T @ rooted / len(y)
        self.scale_ = scaling.scale
        self.coef_ = scaling.back(rotation.basis @ (projected / (rotation.spectrum + self.alpha_)))
        return self


def _left_out(
    rotation: Rotation, targets: Float[np.ndarray, " row"], alphas: Float[np.ndarray, " alpha"], fold_of: np.ndarray
) -> Float[np.ndarray, "row alpha"]:
    """Predict every row by the fit without its fold, for each strength.

    Folds that hold few rows go through the smoother's own block; large ones, whose blocks would be larger than the
    Gram matrix, through a Gram matrix less theirs.
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
    # A block of b rows costs b² products of the rank; chunks keep what is held at once near 64 MB.
    for size, folds in by_size.items():
        step = max(1, int(8e6 / (size * max(size, z.shape[1]))))
        for start in range(0, len(folds), step):
            here = np.stack(folds[start : start + step])
            block = z[here]
            for column, alpha in enumerate(alphas):
                shrunk = block / (rotation.spectrum + alpha)
                residual = targets[here] - shrunk @ projected
                if size == 1:
                    leverage = np.einsum("gbr,gbr->gb", shrunk, block) / rows
                    out = residual / (1 - leverage)
                else:
                    smoother = shrunk @ block.transpose(0, 2, 1) / rows
                    out = np.linalg.solve(np.eye(size) - smoother, residual[..., None])[..., 0]
                predicted[here, column] = targets[here] - out
    return predicted


def _refitted(
    rotation: Rotation, targets: Float[np.ndarray, " row"], alphas: Float[np.ndarray, " alpha"], fold: np.ndarray
) -> Float[np.ndarray, "held_out alpha"]:
    z, rows = rotation.rotated, len(targets)
    left = z[fold]
    spectrum, basis = scipy.linalg.eigh(np.diag(rotation.spectrum) - left.T @ left / rows)
    projected = basis.T @ ((z.T @ targets - left.T @ targets[fold]) / rows)
    return left @ basis @ (projected[:, None] / (np.maximum(spectrum, 0)[:, None] + alphas))


def _less_group_means(
    values: Float[np.ndarray, "row ..."], members: np.ndarray, weights: Float[np.ndarray, " row"]
) -> Float[np.ndarray, "row ..."]:
    flat = values.reshape(len(values), -1)
    sums = np.zeros((members.max() + 1, flat.shape[1]))
    np.add.at(sums, members, weights[:, None] * flat)
    totals = np.bincount(members, weights)
    means = sums / np.where(totals > 0, totals, 1.0)[:, None]
    return (flat - means[members]).reshape(values.shape)


def _ranks(y: Float[np.ndarray, " row"], members: np.ndarray) -> Float[np.ndarray, " row"]:
    ranks = np.zeros(len(y))
    for group in range(members.max() + 1):
        here = np.flatnonzero(members == group)
        if len(here) > 1:
            ranks[here] = 2 * (rankdata(y[here]) - 1) / (len(here) - 1) - 1
    return ranks


def _accuracy_within(
    predicted: Float[np.ndarray, " row"], targets: Float[np.ndarray, " row"], members: np.ndarray
) -> float:
    """Share of the pairs of items within a group, of different targets, that the prediction orders right."""
    right, asked = 0.0, 0
    order = np.argsort(members, kind="stable")
    for here in np.split(order, np.flatnonzero(np.diff(members[order])) + 1):
        first, second = np.triu_indices(len(here), 1)
        said = np.sign(targets[here][first] - targets[here][second])
        seen = np.sign(predicted[here][first] - predicted[here][second])
        right += float(np.where(seen == 0, 0.5, seen == said)[said != 0].sum())
        asked += int((said != 0).sum())
    return right / asked if asked else float("nan")
