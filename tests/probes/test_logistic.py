"""The logistic probe against scikit-learn, planted signals and symmetries."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from probing.probes import LogisticProbe, bootstrap_refits, grouped_folds
from probing.probes._scalings import find_scaling
from probing.probes._solver import Design, solve
from probing.probes._solver._device_rows import DeviceRows
from probing.statistics import outcomes, share_interval


def make_pairs(seed=0, pairs=600, channels=24, strength=1.5, planted=3):
    """Differences with scales over six decades and a correlated spectrum; the first channels carry the signal."""
    rng = np.random.default_rng(seed)
    mixing = np.eye(channels) + 0.3 * rng.normal(size=(channels, channels)) / np.sqrt(channels)
    X = rng.normal(size=(pairs, channels)) @ mixing
    direction = np.zeros(channels)
    direction[:planted] = strength / np.sqrt(planted)
    y = (rng.random(pairs) < expit(X @ direction)).astype(float)
    return X * np.logspace(-3, 3, channels), y, np.arange(pairs) // 2, direction


def objective(probe, X, y, alpha, coef):
    margins = X @ coef
    return np.mean(np.logaddexp(0, margins) - y * margins) + alpha / 2 * np.sum((coef * probe.scale_) ** 2)


def reference(X, y, alpha, weights=None):
    """scikit-learn's optimum of the same objective; its C is converted here."""
    total = len(y) if weights is None else weights.sum()
    model = LogisticRegression(C=1 / (total * alpha), fit_intercept=False, tol=1e-12, max_iter=20_000)
    return model.fit(X, y, sample_weight=weights).coef_[0]


@pytest.mark.parametrize("alpha", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("shape", [(600, 24), (60, 150)])
def test_the_optimum_equals_scikit_learn(alpha, shape):
    X, y, groups, _ = make_pairs(1, *shape)
    probe = LogisticProbe(alphas=(alpha,)).fit(X, y, groups)
    expected = reference(X / probe.scale_, y, alpha) / probe.scale_
    actual, best = (objective(probe, X, y, alpha, coef) for coef in (probe.coef_, expected))
    assert actual <= best * (1 + 1e-6)
    assert actual == pytest.approx(best, rel=1e-6)
    new = make_pairs(2, 400, shape[1])[0]
    clear = np.abs(new @ expected) > 1e-3
    np.testing.assert_array_equal(np.sign(new @ expected)[clear], np.sign(probe.decision_function(new))[clear])


def test_cross_validation_is_that_of_a_plain_loop():
    X, y, groups, _ = make_pairs(3)
    probe = LogisticProbe(alphas=(1e-3, 1e-1, 10.0)).fit(X, y, groups)
    S = X / probe.scale_
    losses, margins = np.zeros((len(y), 3)), np.zeros((len(y), 3))
    for train, held_out in GroupKFold(5).split(S, groups=groups):
        for column, alpha in enumerate(probe.alphas):
            margins[held_out, column] = S[held_out] @ reference(S[train], y[train], alpha)
    losses = np.logaddexp(0, margins) - y[:, None] * margins
    np.testing.assert_allclose(probe.cv_scores_, losses.mean(0), rtol=1e-5)
    best = int(np.argmin(losses.mean(0)))
    assert probe.alpha_ == probe.alphas[best]
    assert probe.cv_accuracy_ == pytest.approx(np.mean(outcomes(margins[:, best], y)), abs=2e-3)


def test_a_separable_design_still_has_its_optimum():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(200, 5))
    y = (X[:, 0] > 0).astype(float)
    probe = LogisticProbe(alphas=(1e-8,)).fit(X, y, np.arange(200))
    margins = X @ probe.coef_
    gradient = (X / probe.scale_).T @ (expit(margins) - y) / len(y) + 1e-8 * probe.coef_ * probe.scale_
    assert np.abs(gradient).max() < 1e-8
    assert outcomes(margins, y).mean() == 1.0


def test_a_planted_direction_is_found():
    X, y, groups, direction = make_pairs(5, pairs=6000)
    train, test = slice(0, 4000), slice(4000, None)
    probe = LogisticProbe().fit(X[train], y[train], groups[train])
    units = np.logspace(-3, 3, 24)
    estimate = probe.coef_ * units
    assert estimate @ direction / np.linalg.norm(estimate) / np.linalg.norm(direction) > 0.98
    # The true direction's accuracy on the same pairs is an upper bound.
    tested = outcomes(probe.decision_function(X[test]), y[test]).mean()
    for accuracy, part in ((tested, test), (probe.cv_accuracy_, train)):
        best = outcomes(X[part] / units @ direction, y[part]).mean()
        assert best > 0.7
        assert accuracy == pytest.approx(best, abs=0.012)


def test_shuffled_choices_give_chance():
    X, y, groups, _ = make_pairs(7, pairs=3000, strength=0.0)
    rng = np.random.default_rng(7)
    probe = LogisticProbe().fit(X[:2000], rng.permutation(y[:2000]), groups[:2000])
    interval = share_interval(outcomes(probe.decision_function(X[2000:]), y[2000:]), groups[2000:])
    assert interval.low <= 0.5 <= interval.high
    assert probe.cv_scores_.min() == pytest.approx(np.log(2), abs=0.01)


def test_swapping_sides_negates_margins_and_keeps_the_fit():
    X, y, groups, _ = make_pairs(8)
    probe = LogisticProbe().fit(X, y, groups)
    np.testing.assert_array_equal(probe.decision_function(-X), -probe.decision_function(X))
    side = np.random.default_rng(8).choice([-1.0, 1.0], len(y))
    swapped = LogisticProbe().fit(X * side[:, None], np.where(side > 0, y, 1 - y), groups)
    assert swapped.alpha_ == probe.alpha_
    np.testing.assert_allclose(swapped.coef_, probe.coef_, rtol=1e-5, atol=1e-9 * np.abs(probe.coef_).max())


def test_the_order_of_pairs_changes_nothing():
    X, y, groups, _ = make_pairs(9)
    order = np.random.default_rng(9).permutation(len(y))
    probe, permuted = LogisticProbe().fit(X, y, groups), LogisticProbe().fit(X[order], y[order], groups[order])
    assert probe.alpha_ == permuted.alpha_
    assert probe.cv_accuracy_ == pytest.approx(permuted.cv_accuracy_)
    np.testing.assert_allclose(probe.coef_, permuted.coef_, rtol=1e-5, atol=1e-9 * np.abs(probe.coef_).max())


def test_a_share_is_equivalent_to_repeated_rows():
    X, _, groups, _ = make_pairs(10, pairs=200)
    share = np.random.default_rng(10).integers(0, 11, 200) / 10
    soft = LogisticProbe(alphas=(0.01,)).fit(X, share, groups)
    hard = np.concatenate([np.ones(200), np.zeros(200)])
    expected = reference(np.tile(X / soft.scale_, (2, 1)), hard, 0.01, np.concatenate([share, 1 - share]))
    actual, best = (objective(soft, X, share, 0.01, coef) for coef in (soft.coef_, expected / soft.scale_))
    assert actual == pytest.approx(best, rel=1e-6)
    rows = LogisticProbe(alphas=(0.01,)).fit(
        np.repeat(X, 10, axis=0),
        np.concatenate([np.repeat([1.0, 0.0], [round(10 * s), 10 - round(10 * s)]) for s in share]),
        np.repeat(groups, 10),
    )
    np.testing.assert_allclose(rows.coef_, soft.coef_, rtol=1e-4, atol=1e-6 * np.abs(soft.coef_).max())


def test_ties_shrink_the_fit_and_are_not_scored():
    X, y, groups, _ = make_pairs(11, pairs=100)
    y[:50] = 0.5
    probe = LogisticProbe(alphas=(0.1,)).fit(X, y, groups)
    assert 0 <= probe.cv_accuracy_ <= 1
    tied = LogisticProbe().fit(X, np.full(100, 0.5), groups)
    assert np.isnan(tied.cv_accuracy_)
    np.testing.assert_allclose(tied.coef_, 0)
    assert tied.alpha_ == max(tied.alphas)


def test_constant_channels_have_coefficient_zero():
    X, y, groups, _ = make_pairs(12)
    X[:, 5] = 0.0
    X[:, 6] = X[:, 7]
    probe = LogisticProbe().fit(X, y, groups)
    assert probe.scale_[5] == 1.0
    assert np.isfinite(probe.coef_).all()
    assert probe.coef_[5] == pytest.approx(0, abs=1e-12)
    assert probe.coef_[6] == pytest.approx(probe.coef_[7], rel=1e-4)
    nothing = LogisticProbe().fit(np.zeros_like(X), y, groups)
    np.testing.assert_array_equal(nothing.decision_function(X), 0)
    assert nothing.cv_accuracy_ == 0.5


def test_it_is_an_estimator():
    probe = LogisticProbe(alphas=(0.1, 1.0), folds=3)
    assert clone(probe).get_params() == {"alphas": (0.1, 1.0), "folds": 3, "scaling": "standard", "device": "cpu"}
    X, y, groups, _ = make_pairs(13)
    assert probe.fit(X, y, groups) is probe
    assert probe.n_features_in_ == 24 and probe.cv_scores_.shape == (2,)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y, g: (X[:, 0], y, g), "Expected 2D array"),
        (lambda X, y, g: (X, y[:-1], g), "inconsistent numbers of samples"),
        (lambda X, y, g: (np.where(X > 0, X, np.nan), y, g), "contains NaN"),
        (lambda X, y, g: (X, 2 * y, g), "labels outside"),
        (lambda X, y, g: (X, y, g % 4), "expected at least one per fold"),
    ],
)
def test_bad_input_is_refused(change, message):
    X, y, groups, _ = make_pairs(14)
    with pytest.raises(ValueError, match=message):
        LogisticProbe().fit(*change(X, y, groups))


def test_weights_count_as_copies_do():
    """A pair of weight two equals two pairs; a pair of weight zero has no effect."""
    X, y, groups, _ = make_pairs(16, 300, 8)
    weights = np.random.default_rng(0).integers(0, 4, len(y))
    weighted = LogisticProbe(alphas=(1e-2,)).fit(X, y, groups, weights)
    copied = LogisticProbe(alphas=(1e-2,)).fit(*(np.repeat(values, weights, axis=0) for values in (X, y, groups)))
    np.testing.assert_allclose(weighted.scale_, copied.scale_, rtol=1e-12)
    np.testing.assert_allclose(weighted.coef_, copied.coef_, rtol=1e-5)
    expected = reference(X / weighted.scale_, y, 1e-2, weights.astype(float)) / weighted.scale_
    np.testing.assert_allclose(weighted.coef_, expected, rtol=1e-4)
    # The folds' margins, by an explicit loop.
    folds, margins = grouped_folds(groups), np.zeros(len(y))
    for fold in range(5):
        out = folds == fold
        coef = reference((X / weighted.scale_)[~out], y[~out], 1e-2, weights[~out].astype(float))
        margins[out] = (X / weighted.scale_)[out] @ coef
    losses = np.logaddexp(0, margins) - y * margins
    assert weighted.cv_scores_[0] == pytest.approx(np.average(losses, weights=weights), rel=1e-5)
    assert weighted.cv_accuracy_ == pytest.approx(np.average((margins > 0) == (y > 0.5), weights=weights))


@pytest.mark.parametrize("scaling", ["standard", "whiten"])
def test_refits_equal_scikit_learn_on_resampled_prompts(scaling):
    X, y, groups, _ = make_pairs(18, 300, 6)
    probe = LogisticProbe(alphas=(1e-2,), scaling=scaling).fit(X, y, groups)
    refits = bootstrap_refits(probe, X, y, groups, resamples=5, seed=7)
    mapped = find_scaling(scaling, X, np.full(len(y), 1 / len(y)))
    rng, prompts = np.random.default_rng(7), len(np.unique(groups))
    for refit in refits:
        drawn = np.bincount(rng.integers(prompts, size=prompts), minlength=prompts)
        expected = mapped.back(reference(mapped.apply(X), y, 1e-2, drawn[groups].astype(float)))
        np.testing.assert_allclose(X @ refit, X @ expected, rtol=1e-3, atol=1e-4)
    assert (refits.std(axis=0) > 0).all()


def test_a_planted_signal_is_recovered_within_one_point():
    """The upper bound is the true direction's accuracy on the same test pairs."""
    for seed in (19, 20):
        X, y, groups, direction = make_pairs(seed, 24_000, 12, strength=1.0)
        train, test = slice(0, 12_000), slice(12_000, None)
        probe = LogisticProbe().fit(X[train], y[train], groups[train])
        ideal = X[test] / np.logspace(-3, 3, 12) @ direction
        best, reached = (np.mean((m > 0) == (y[test] > 0.5)) for m in (ideal, probe.decision_function(X[test])))
        assert abs(reached - best) < 0.01


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("weights", [-np.ones(600), np.zeros(600), np.full(600, np.nan), np.ones(5)])
def test_bad_weights_are_refused(weights):
    X, y, groups, _ = make_pairs(17)
    with pytest.raises(ValueError, match="sample.weight"):
        LogisticProbe().fit(X, y, groups, weights)


def test_bad_strengths_and_widths_are_refused():
    X, y, groups, _ = make_pairs(15)
    with pytest.raises(ValueError, match="numbers above 0"):
        LogisticProbe(alphas=(0.0, 1.0)).fit(X, y, groups)
    with pytest.raises(ValueError, match="expecting 24 features"):
        LogisticProbe().fit(X, y, groups).decision_function(X[:, :3])


@pytest.mark.parametrize("shape", [(600, 24), (60, 150)])
def test_torch_products_give_the_same_optimum(shape):
    """Run the accelerator's code with torch on the CPU."""
    X, y, groups, _ = make_pairs(21, *shape)
    S = X / LogisticProbe().fit(X, y, groups).scale_
    weights, alphas = np.full((len(y), 2), 1 / len(y)), np.array([1e-4, 1e-1])
    design = Design.prepare(S)
    designs = design, design._replace(single=DeviceRows.to_device(design.rows.astype(np.float32), "cpu"))
    one, two = (design.coefficients(solve(design, y, weights, alphas, tolerance=1e-12)) for design in designs)
    np.testing.assert_allclose(S @ two, S @ one, rtol=1e-5, atol=1e-7)
    single = DeviceRows.to_device(design.single, "cpu")
    np.testing.assert_allclose(single.T @ single / len(y), design.gram, rtol=1e-4, atol=1e-5)


def test_an_unavailable_device_is_reported():
    X, y, groups, _ = make_pairs(22)
    with pytest.raises(ValueError, match="Got device 'cuda:99', which is not available"):
        LogisticProbe(device="cuda:99").fit(X, y, groups)


@pytest.mark.parametrize(
    "shape", [{"pairs": 900, "channels": 300, "strength": 8.0}, {"pairs": 300, "channels": 300, "strength": 60.0}]
)
def test_columns_of_every_difficulty_reach_their_optimum(shape):
    """Nearly and fully separable folds under strengths down to 1e-8, where the loss has almost no curvature."""
    X, y, groups, _ = make_pairs(23, **shape)
    S = X / np.sqrt((X**2).mean(0))
    alphas = np.repeat([1e-8, 1e-5, 1e-3, 1.0], 5)
    training = (grouped_folds(groups)[:, None] != np.arange(5)).astype(float)
    weights = np.tile(training / training.sum(0), 4)
    design = Design.prepare(S)
    solution = design.coefficients(solve(design, y, weights, alphas, tolerance=1e-9))
    margins = S @ solution
    losses = (weights * (np.logaddexp(0, margins) - y[:, None] * margins)).sum(0) + alphas / 2 * (solution**2).sum(0)
    gradient = S.T @ (weights * (expit(margins) - y[:, None])) + alphas * solution
    for column, alpha in enumerate(alphas):
        # By the exact Hessian: the Newton decrement is the distance from the optimum, in the objective's units.
        bend = weights[:, column] * expit(margins[:, column]) * expit(-margins[:, column])
        hessian = S.T @ (bend[:, None] * S) + alpha * np.eye(S.shape[1])
        left = gradient[:, column] @ np.linalg.solve(hessian, gradient[:, column]) / 2
        assert left <= 1e-7 * losses[column]


def test_columns_do_not_depend_on_one_another():
    X, y, _, _ = make_pairs(24, 500, 40)
    S = X / np.sqrt((X**2).mean(0))
    weights = np.random.default_rng(0).dirichlet(np.ones(len(y)), 6).T
    alphas = np.logspace(-4, 1, 6)
    design = Design.prepare(S)
    together = solve(design, y, weights, alphas, tolerance=1e-12)
    for column in range(6):
        alone = solve(design, y, weights[:, [column]], alphas[[column]], tolerance=1e-12)
        np.testing.assert_allclose(S @ together[:, [column]], S @ alone, rtol=1e-4, atol=1e-6)
