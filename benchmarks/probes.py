"""What fitting probes costs, beside what one would do with scikit-learn: ``python benchmarks/probes.py``.

Every comparison is on the same machine, the same numbers and one thread, in turns; the ratio is the median over turns
with its range, and beside it stands how far the objective is from the optimum (relative, worst column; the optimum is
scikit-learn's at tolerance 1e-10 or ours, whichever is lower).

- path: 5 folds × 8 strengths of the logistic probe; scikit-learn's lbfgs, warm-started from strength to strength.
- refits: bootstrap refits of one strength.
- ridge: 20 strengths with leave-one-out; RidgeCV.
- interval: a cluster bootstrap of 96 probes; scipy.stats.bootstrap, one probe at a time, over prompts of one pair.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import scipy.stats
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, RidgeCV
from threadpoolctl import threadpool_limits

from probing.probes import RidgeProbe, grouped_folds
from probing.probes.solver import prepare, solve
from probing.statistics import cluster_bootstrap

FOLDS = 5
STRENGTHS = np.logspace(-4, 0, 8)


def make_pairs(pairs: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardised differences with a spectrum that falls as features' do, and choices of a planted direction."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(width, width)))[0]
    X = rng.normal(size=(pairs, width)) * np.arange(1, width + 1) ** -0.5 @ basis
    X /= np.sqrt((X**2).mean(0))
    margins = X @ rng.normal(size=width)
    y = (rng.random(pairs) < expit(1.5 * margins / margins.std())).astype(float)
    return X, y, np.arange(pairs) // 2


def objective(X: np.ndarray, y: np.ndarray, alpha: float, coef: np.ndarray, weights: np.ndarray) -> float:
    margins = X @ coef
    return float(weights @ (np.logaddexp(0, margins) - y * margins) + alpha / 2 * coef @ coef)


def ours_path(X, y, groups):
    fold_of = grouped_folds(groups, FOLDS)
    order = np.argsort(fold_of, kind="stable")
    X, y, fold_of = X[order], y[order], fold_of[order]
    design = prepare(X)
    kept = (fold_of[:, None] != np.arange(FOLDS)).astype(float)
    weights = np.repeat(kept / kept.sum(0), len(STRENGTHS), axis=1)
    found = solve(design, y, weights, np.tile(STRENGTHS, FOLDS), tolerance=1e-6)
    return design.coefficients(found).T.reshape(FOLDS, len(STRENGTHS), -1)


def theirs_path(tol: float) -> Callable:
    def run(X, y, groups):
        fold_of = grouped_folds(groups, FOLDS)
        found = np.empty((FOLDS, len(STRENGTHS), X.shape[1]))
        for fold in range(FOLDS):
            train = fold_of != fold
            model = LogisticRegression(fit_intercept=False, warm_start=True, tol=tol, max_iter=10_000)
            for place in np.argsort(-STRENGTHS):
                model.set_params(C=1 / (train.sum() * STRENGTHS[place]))
                found[fold, place] = model.fit(X[train], y[train]).coef_[0]
        return found

    return run


def path_gap(X, y, groups, found) -> float:
    """Worst relative distance of the objectives from the optimum, over columns."""
    fold_of = grouped_folds(groups, FOLDS)
    optimum = theirs_path(1e-10)(X, y, groups)
    worst = 0.0
    for fold in range(FOLDS):
        weights = (fold_of != fold) / (fold_of != fold).sum()
        for place, alpha in enumerate(STRENGTHS):
            value, best = (objective(X, y, alpha, c[fold, place], weights) for c in (found, optimum))
            worst = max(worst, (value - best) / best)
    return worst


def bootstrap_weights(pairs: int, groups: np.ndarray, resamples: int) -> np.ndarray:
    rng, prompts = np.random.default_rng(1), int(groups.max()) + 1
    drawn = np.stack([np.bincount(rng.integers(prompts, size=prompts), minlength=prompts) for _ in range(resamples)])
    return drawn.T[groups].astype(float)


def timed(run: Callable, *arguments) -> tuple[float, object]:
    began = time.perf_counter()
    found = run(*arguments)
    return time.perf_counter() - began, found


def report(name: str, ours: list[float], theirs: dict[str, list[float]], gap: str = "") -> None:
    print(f"{name}: {_range(ours)} s{gap}")
    for label, seconds in theirs.items():
        ratios = [their / our for their, our in zip(seconds, ours, strict=True)]
        print(f"    {label}: {_range(seconds)} s, {_range(ratios)} times ours")


def _range(values) -> str:
    return f"{np.median(values):.3g} [{np.min(values):.3g}, {np.max(values):.3g}]"


def bench_path(pairs: int, width: int, cells: int, turns: int, exact: bool) -> None:
    ways = {"scikit-learn, tol 1e-4": theirs_path(1e-4)} | (
        {"scikit-learn, tol 1e-7": theirs_path(1e-7)} if exact else {}
    )
    ours: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns):
        data = [make_pairs(pairs, width, seed=100 * turn + cell) for cell in range(cells)]
        ours.append(sum(timed(ours_path, *cell)[0] for cell in data))
        for name, way in ways.items():
            theirs[name].append(sum(timed(way, *cell)[0] for cell in data))
    gap = path_gap(*data[0], ours_path(*data[0]))
    report(f"path, {pairs:,} pairs × {width}, {cells} cells", ours, theirs, f", gap {gap:.1e}")


def bench_refits(pairs: int, width: int, resamples: int, turns: int) -> None:
    X, y, groups = make_pairs(pairs, width)
    weights, alpha = bootstrap_weights(pairs, groups, resamples), 1e-2

    def together():
        design = prepare(X)
        return design.coefficients(
            solve(design, y, weights / weights.sum(0), np.full(resamples, alpha), tolerance=1e-6)
        )

    def one_by_one():
        model = LogisticRegression(C=1 / (pairs * alpha), fit_intercept=False, max_iter=10_000)
        return [model.fit(X, y, sample_weight=column).coef_[0] for column in weights.T]

    turns_of = [(timed(together)[0], timed(one_by_one)[0]) for _ in range(turns)]
    ours, theirs = (list(column) for column in zip(*turns_of, strict=True))
    report(f"{resamples} refits, {pairs:,} × {width}", ours, {"scikit-learn, tol 1e-4": theirs})


def bench_ridge(pairs: int, width: int, turns: int) -> None:
    X, y, _ = make_pairs(pairs, width)
    alphas = np.logspace(-4, 1, 20)
    ours, theirs = [], []
    for _ in range(turns):
        seconds, probe = timed(RidgeProbe(alphas=alphas).fit, X, y)
        ours.append(seconds)
        S = X / probe.scale_
        seconds, model = timed(RidgeCV(alphas * pairs, fit_intercept=False).fit, S, 2 * y - 1)
        theirs.append(seconds)
    apart = np.abs(probe.coef_ * probe.scale_ - model.coef_).max() / np.abs(model.coef_).max()
    same = np.isclose(probe.alpha_ * pairs, model.alpha_)
    report(f"ridge, 20 strengths, {pairs:,} × {width}", ours, {"RidgeCV": theirs},
           f", {'same' if same else 'ANOTHER'} strength, coefficients {apart:.0e} apart")  # fmt: skip


def bench_interval(pairs: int, probes: int, resamples: int, turns: int) -> None:
    rng = np.random.default_rng(0)
    right = (rng.random((pairs, probes)) < np.linspace(0.5, 0.8, probes)).astype(float)
    ours, theirs = [], []
    for _ in range(turns):
        ours.append(timed(lambda: cluster_bootstrap(right, np.arange(pairs), resamples=resamples))[0])

        def one_by_one():
            for column in right.T:
                scipy.stats.bootstrap((column,), np.mean, n_resamples=resamples, method="percentile", batch=100,
                                      vectorized=True, rng=0)  # fmt: skip

        theirs.append(timed(one_by_one)[0])
    report(f"interval, {probes} probes, {pairs:,} pairs, {resamples} resamples", ours, {"scipy.stats": theirs})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--pairs", type=int, default=10_000)
    add("--turns", type=int, default=3)
    add("--cells", type=int, nargs=2, default=(24, 60), help="cells at width 1536 and at width 192")
    add("--only", choices=["path", "refits", "ridge", "interval"], nargs="+", help="leave the others out")
    add("--exact", action="store_true", help="also scikit-learn at tolerance 1e-7, which takes several times longer")
    arguments = parser.parse_args()
    asked = arguments.only or ["path", "refits", "ridge", "interval"]
    with threadpool_limits(1):
        if "path" in asked:
            for width, cells in zip((1536, 192), arguments.cells, strict=True):
                bench_path(arguments.pairs, width, cells, arguments.turns, arguments.exact)
        if "refits" in asked:
            bench_refits(arguments.pairs, 1536, 100, arguments.turns)
        if "ridge" in asked:
            bench_ridge(arguments.pairs, 1536, arguments.turns)
        if "interval" in asked:
            bench_interval(arguments.pairs, 96, 1000, arguments.turns)


if __name__ == "__main__":
    main()
