"""Compare the time of fitting probes with scikit-learn's: ``python benchmarks/probes.py``.

Every comparison uses the same machine, the same numbers and the same number of threads (``--threads``), in turns. A
ratio is the median over turns with its range, next to the relative distance of the objective from the optimum (the
worst column). The optimum is the lowest of ours at 1e-13 and, on one fold, scikit-learn's at tolerance 1e-10.

- path: 5 folds × 8 strengths of the logistic probe; scikit-learn's lbfgs, warm-started from strength to strength.
- grid: the same, with the scale, the choice of the strength and the last fit: all of ``LogisticProbe.fit``.
- refits: 100 bootstrap refits of one strength.
- ridge: 20 strengths with leave-one-out; RidgeCV.
- paired: exact sign-flip tests of 96 probes; scipy.stats.permutation_test, one probe at a time, prompts of one pair.

Cells, refits and probes are independent, so scikit-learn and SciPy are timed on a few of them each turn
(``--their-cells`` and so on), and their time is scaled to the full number, as the output notes. Ours is always timed on
all. Cells differ in their choices; nothing is cached between them.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import platform
import pstats
import time
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import scipy
import scipy.stats
import sklearn
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, RidgeCV
from threadpoolctl import threadpool_limits

from probing.probes import LogisticProbe, RidgeProbe, bootstrap_refits, grouped_folds
from probing.probes._solver import solve
from probing.statistics import paired_difference

FOLDS = 5
STRENGTHS = np.logspace(-4, 0, 8)
TARGET = 1e-6
"""Requested relative distance from the optimum."""
PARTS = ("path", "grid", "refits", "ridge", "paired")


def make_features(pairs: int, width: int, seed: int = 0) -> np.ndarray:
    """Standardised differences with a spectrum that falls as features' do."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(width, width)))[0]
    X = rng.normal(size=(pairs, width)) * np.arange(1, width + 1) ** -0.5 @ basis
    return X / np.sqrt((X**2).mean(0))


def make_choices(X: np.ndarray, seed: int) -> np.ndarray:
    """Choices by a planted direction."""
    rng = np.random.default_rng([seed, 1])
    margins = X @ rng.normal(size=X.shape[1])
    return (rng.random(len(X)) < expit(1.5 * margins / margins.std())).astype(float)


def objective(X: np.ndarray, y: np.ndarray, alpha: float, coef: np.ndarray, weights: np.ndarray) -> float:
    margins = X @ coef
    return float(weights @ (np.logaddexp(0, margins) - y * margins) + alpha / 2 * coef @ coef)


def our_path(X, y, groups, tolerance=TARGET):
    fold_of = grouped_folds(groups, FOLDS)
    order = np.argsort(fold_of, kind="stable")
    X, y, fold_of = X[order], y[order], fold_of[order]
    training = (fold_of[:, None] != np.arange(FOLDS)).astype(float)
    weights = np.repeat(training / training.sum(0), len(STRENGTHS), axis=1)
    design = Design.prepare(X)
    b = solve(design, y, weights, np.tile(STRENGTHS, FOLDS), tolerance=tolerance)
    return design.coefficients(b).T.reshape(FOLDS, len(STRENGTHS), -1)


def their_path(X, y, groups, tol, folds=FOLDS):
    fold_of = grouped_folds(groups, FOLDS)
    path = np.empty((folds, len(STRENGTHS), X.shape[1]))
    for fold in range(folds):
        train = fold_of != fold
        model = LogisticRegression(fit_intercept=False, warm_start=True, tol=tol, max_iter=10_000)
        for index in np.argsort(-STRENGTHS):
            model.set_params(C=1 / (train.sum() * STRENGTHS[index]))
            path[fold, index] = model.fit(X[train], y[train]).coef_[0]
    return path


def their_choice(X, y, groups, tol, path):
    """Finish a cell after the path: score the held-out pairs, choose a strength, and fit to all pairs."""
    fold_of = grouped_folds(groups, FOLDS)
    losses = np.zeros(len(STRENGTHS))
    for fold in range(FOLDS):
        out = fold_of == fold
        margins = X[out] @ path[fold].T
        losses += (np.logaddexp(0, margins) - y[out, None] * margins).sum(0)
    best = STRENGTHS[int(np.argmin(losses))]
    model = LogisticRegression(C=1 / (len(y) * best), fit_intercept=False, tol=tol, max_iter=10_000)
    return best, model.fit(X, y).coef_[0]


def gap(X, y, groups, path, optima) -> float:
    """Worst relative distance of the objectives from the lowest one, over folds and strengths."""
    fold_of, worst = grouped_folds(groups, FOLDS), 0.0
    for fold in range(FOLDS):
        weights = (fold_of != fold) / (fold_of != fold).sum()
        for index, alpha in enumerate(STRENGTHS):
            value = objective(X, y, alpha, path[fold, index], weights)
            lowest = [objective(X, y, alpha, o[fold, index], weights) for o in optima if fold < len(o)]
            worst = max(worst, (value - min(lowest)) / min(lowest))
    return worst


def timed(run: Callable, *arguments) -> tuple[float, object]:
    began = time.perf_counter()
    result = run(*arguments)
    return time.perf_counter() - began, result


def report(name: str, ours: list[float], theirs: dict[str, list[float]], note: str = "") -> None:
    print(f"{name}: {_range(ours)} s{note}", flush=True)
    for label, seconds in theirs.items():
        ratios = [their / our for their, our in zip(seconds, ours, strict=True)]
        print(f"    {label}: {_range(seconds)} s, {_range(ratios)} times ours", flush=True)


def _range(values) -> str:
    return f"{np.median(values):.3g} [{np.min(values):.3g}, {np.max(values):.3g}]"


def bench_logistic(selected: list[str], pairs: int, width: int, cells: int, their_cells: int, options) -> None:
    X, groups = make_features(pairs, width), np.arange(pairs) // 2
    tols = (1e-4, 1e-7) if options.exact else (1e-4,)
    path: list[float] = []
    grid: list[float] = []
    their_paths: dict[str, list[float]] = {}
    their_grids: dict[str, list[float]] = {}
    same, last_gaps, their_gaps = 0, [], dict.fromkeys(tols, 0.0)
    for turn in range(options.turns):
        choices = [make_choices(X, 1000 * turn + cell) for cell in range(cells)]
        paths = [timed(our_path, X, y, groups) for y in choices] if "path" in selected else []
        path.append(sum(seconds for seconds, _ in paths))
        probes = []
        if "grid" in selected:
            probes = [timed(LogisticProbe(alphas=tuple(STRENGTHS)).fit, X, y, groups) for y in choices]
            grid.append(sum(seconds for seconds, _ in probes))
        for tol in tols:
            label = f"scikit-learn, tol {tol:.0e}, {their_cells} of {cells} cells × {cells / their_cells:g}"
            on_path = on_choice = 0.0
            for cell in range(their_cells):
                seconds, theirs = timed(their_path, X, choices[cell], groups, tol)
                on_path += seconds
                seconds, (alpha, coef) = timed(their_choice, X, choices[cell], groups, tol, theirs)
                on_choice += seconds
                if probes:
                    probe, weights = probes[cell][1], np.full(pairs, 1 / pairs)
                    # Both chose on the same grid; the probe's features are divided by scales of 1 but for rounding.
                    same += np.isclose(probe.alpha_, alpha)
                    value, reference = (objective(X, choices[cell], alpha, c, weights) for c in (probe.coef_, coef))
                    last_gaps.append((value - reference) / reference)
            their_paths.setdefault(label, []).append(on_path * cells / their_cells)
            their_grids.setdefault(label, []).append((on_path + on_choice) * cells / their_cells)
            if turn == 0 and paths:
                y = choices[their_cells - 1]
                best = [our_path(X, y, groups, 1e-13), their_path(X, y, groups, 1e-10, folds=1)]
                their_gaps[tol] = gap(X, y, groups, theirs, best)
                our_gap = gap(X, y, groups, paths[their_cells - 1][1], best)
    name = f"{pairs:,} pairs × {width}, {cells} cells"
    if "path" in selected:
        theirs_off = ", ".join(f"{value:.0e} at tol {tol:.0e}" for tol, value in their_gaps.items())
        report(f"path, {name}", path, their_paths, f", gap {our_gap:.0e} (scikit-learn's {theirs_off})")
        profile(X, choices[0], groups)
    if "grid" in selected:
        report(
            f"grid, {name}",
            grid,
            their_grids,
            f", same strength in {same} of {len(last_gaps)}, objective of the "
            f"last fit less scikit-learn's at most {max(last_gaps):+.0e} of it",
        )


def profile(X: np.ndarray, y: np.ndarray, groups: np.ndarray) -> None:
    """Print the time of each part of one path, and the time of its matrix products alone."""
    touched = [0]
    gradient = _descent._gradient

    def counted(x, y, w, m, blocks):
        touched[0] += sum((b.rows.stop - b.rows.start) * w[b.rows][:, b.columns].shape[1] for b in blocks)
        return gradient(x, y, w, m, blocks)

    with patch.object(_descent, "_gradient", counted):
        our_path(X, y, groups)
    profiler = cProfile.Profile()
    seconds = profiler.runcall(timed, our_path, X, y, groups)[0]
    inside: dict[str, float] = {}
    for (file, _, name), (_, _, _, cumulative, _) in pstats.Stats(profiler).stats.items():
        if "probing" in file:
            inside[f"{os.path.basename(file)}:{name}"] = cumulative
    single = X.astype(np.float32)
    columns = FOLDS * len(STRENGTHS)
    b, r = (np.ones((size, columns), dtype=np.float32) for size in (X.shape[1], len(X)))
    gram, step = (
        min(timed(run)[0] for _ in range(3)) for run in (lambda: single.T @ single, lambda: (single @ b, single.T @ r))
    )
    steps = touched[0] / (len(X) * columns)
    print(
        f"    profile of one path, {seconds:.3g} s: copy and Gram matrix {inside['_design.py:prepare']:.3g}, factors "
        f"{inside['_preconditioner.py:__init__']:.3g}, their use {inside['_preconditioner.py:__call__']:.3g}, "
        f"gradients {inside['_descent.py:_gradient']:.3g}, margins {inside['_descent.py:_times']:.3g}, searches "
        f"{inside['_descent.py:_search']:.3g}\n"
        f"    lower bound, products in single precision: Gram matrix {gram:.3g} s, and {steps:.1f} steps of {columns} "
        f"columns (rows of left-out folds and finished columns skipped) × {step:.3g} = {steps * step:.3g} s",
        flush=True,
    )


def bench_refits(pairs: int, width: int, resamples: int, their_refits: int, options) -> None:
    X, groups, alpha = make_features(pairs, width), np.arange(pairs) // 2, 1e-2
    y = make_choices(X, 0)
    probe = LogisticProbe(alphas=(alpha,)).fit(X, y, groups)
    rng, prompts = np.random.default_rng(0), int(groups.max()) + 1
    drawn = np.stack([np.bincount(rng.integers(prompts, size=prompts), minlength=prompts) for _ in range(resamples)])
    weights = drawn[:, groups].astype(float)
    tols = (1e-4, 1e-7) if options.exact else (1e-4,)
    ours: list[float] = []
    theirs: dict[str, list[float]] = {}
    for _ in range(options.turns):
        seconds, refits = timed(lambda: bootstrap_refits(probe, X, y, groups, resamples=resamples, tolerance=TARGET))
        ours.append(seconds)
        for tol in tols:
            model = LogisticRegression(C=1 / (pairs * alpha), fit_intercept=False, tol=tol, max_iter=10_000)

            def one_by_one(model=model):
                return [model.fit(X, y, sample_weight=w).coef_[0].copy() for w in weights[:their_refits]]

            label = f"scikit-learn, tol {tol:.0e}, {their_refits} of {resamples} refits × {resamples / their_refits:g}"
            theirs.setdefault(label, []).append(timed(one_by_one)[0] * resamples / their_refits)
    exact = bootstrap_refits(probe, X, y, groups, resamples=resamples, tolerance=1e-13)
    worst = 0.0
    for w, refit, optimum in zip(weights / weights.sum(1, keepdims=True), refits, exact, strict=True):
        value, best = (objective(X, y, alpha, c, w) for c in (refit, optimum))
        worst = max(worst, (value - best) / best)
    report(f"{resamples} refits, {pairs:,} × {width}, strength {alpha:g}", ours, theirs, f", gap {worst:.0e}")


def bench_ridge(pairs: int, width: int, options) -> None:
    X = make_features(pairs, width)
    y, alphas = make_choices(X, 0), np.logspace(-4, 1, 20)
    ours, theirs = [], []
    for _ in range(options.turns):
        seconds, probe = timed(RidgeProbe(alphas=alphas).fit, X, y)
        ours.append(seconds)
        S = X / probe.scale_
        seconds, model = timed(RidgeCV(alphas * pairs, fit_intercept=False).fit, S, 2 * y - 1)
        theirs.append(seconds)
    apart = np.abs(probe.coef_ * probe.scale_ - model.coef_).max() / np.abs(model.coef_).max()
    same = "same" if np.isclose(probe.alpha_ * pairs, model.alpha_) else "ANOTHER"
    report(
        f"ridge, {len(alphas)} strengths, {pairs:,} × {width}",
        ours,
        {"RidgeCV": theirs},
        f", {same} strength, coefficients {apart:.0e} apart",
    )


def bench_paired(pairs: int, probes: int, their_resamples: int, options) -> None:
    """Time exact paired tests of many probes beside SciPy's permutation test, one probe at a time."""
    rng = np.random.default_rng(0)
    first, second = ((rng.random((pairs, probes)) < accuracy).astype(float) for accuracy in (0.72, 0.7))
    groups = np.arange(pairs)
    ours, theirs = [], []
    for _ in range(options.turns):
        seconds, _ = timed(lambda: paired_difference(first, second, groups))
        ours.append(seconds)
        difference = first[:, 0] - second[:, 0]
        seconds, _ = timed(
            lambda d=difference: scipy.stats.permutation_test(
                (d,), np.mean, permutation_type="samples", n_resamples=their_resamples, batch=100, rng=0
            )
        )
        theirs.append(seconds * probes)
    name = f"scipy.stats.permutation_test, {their_resamples:,} flips, 1 probe × {probes}"
    report(f"paired tests and intervals, {probes} probes, {pairs:,} pairs", ours, {name: theirs}, "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--pairs", type=int, default=10_000)
    add("--turns", type=int, default=3)
    add("--threads", type=int, default=1, help="threads of linear algebra, for both")
    add("--cells", type=int, nargs=2, default=(24, 60), help="cells at width 1536 and at width 192")
    add(
        "--their-cells",
        type=int,
        nargs=2,
        default=(1, 4),
        help="number of cells that scikit-learn is timed on each turn",
    )
    add("--their-refits", type=int, default=10, help="of 100 refits")
    add("--only", choices=PARTS, nargs="+", default=PARTS, help="run only these parts")
    add("--exact", action="store_true", help="also time scikit-learn at tolerance 1e-7, which is several times slower")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {options.threads} of {os.cpu_count()} threads; NumPy {np.__version__}, SciPy "
        f"{scipy.__version__}, scikit-learn {sklearn.__version__}; median [least, most] of {options.turns} turns",
        flush=True,
    )
    with threadpool_limits(options.threads):
        selected = [part for part in ("path", "grid") if part in options.only]
        if selected:
            for width, cells, some in zip((1536, 192), options.cells, options.their_cells, strict=True):
                bench_logistic(selected, options.pairs, width, cells, min(some, cells), options)
        if "refits" in options.only:
            bench_refits(options.pairs, 1536, 100, options.their_refits, options)
        if "ridge" in options.only:
            bench_ridge(options.pairs, 1536, options)
        if "paired" in options.only:
            bench_paired(options.pairs, 96, 2000, options)


if __name__ == "__main__":
    main()
