"""All probes have one interface: they are fitted to pairs of items and score items."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from probing.errors import UserError
from probing.probes import ALPHAS, PROBES, SCALINGS, Probe, make_probe

PAIRS, TOKENS, CHANNELS = 60, 3, 2


def make_items(name: str):
    rng = np.random.default_rng(0)
    items = rng.normal(size=(2 * PAIRS, TOKENS, CHANNELS)).astype(np.float32)
    rows = rng.permutation(2 * PAIRS).reshape(-1, 2)
    y = (rng.random(PAIRS) < expit(items[rows[:, 0], 0, 0] - items[rows[:, 1], 0, 0])).astype(float)
    return items if name == "attention" else items.reshape(2 * PAIRS, -1), rows, y, np.arange(PAIRS) // 2


def make(name: str) -> Probe:
    probe = make_probe(name)
    fast = {"seeds": 2, "epochs": 2, "hidden": (8,)}
    return probe.set_params(**{option: value for option, value in fast.items() if option in probe.get_params()})


@pytest.mark.parametrize("name", PROBES)
def test_every_probe_is_fitted_to_pairs_of_items(name):
    items, rows, y, groups = make_items(name)
    probe = make(name).fit_pairs(items, rows, y, groups, np.ones(PAIRS))
    assert isinstance(probe, Probe)
    assert 0 <= probe.cv_accuracy_ <= 1 and probe.cv_margins_.shape == (PAIRS,)
    assert probe.scaling_ == "standard" and (np.isnan(probe.alpha_) or probe.alpha_ in ALPHAS)
    margins, rewards = probe.pair_margins(items, rows), probe.rewards(items)
    assert margins.shape == (PAIRS, 2 if hasattr(probe, "seeds") else 1)
    np.testing.assert_allclose(margins.mean(axis=1), rewards[rows[:, 0]] - rewards[rows[:, 1]], atol=1e-6)
    np.testing.assert_array_equal(probe.pair_margins(items, rows[:, ::-1]), -margins)


@pytest.mark.parametrize("name", PROBES)
def test_held_out_margins_give_the_held_out_accuracy(name):
    items, rows, y, groups = make_items(name)
    probe = make(name)
    if hasattr(probe, "seeds"):
        probe.set_params(seeds=1)
    probe.fit_pairs(items, rows, y, groups)
    held_out = ~np.isnan(probe.cv_margins_)
    assert held_out.all() == (not hasattr(probe, "seeds"))
    correct = (probe.cv_margins_[held_out] > 0) == (y[held_out] > 0.5)
    assert probe.cv_accuracy_ == pytest.approx(correct.mean())


@pytest.mark.parametrize("name", ["logistic", "ridge", "mean_difference", "pca1"])
def test_linear_probes_are_fitted_to_differences_in_double_precision(name):
    items, rows, y, groups = make_items(name)
    X = items[rows[:, 0]].astype(np.float64) - items[rows[:, 1]]
    np.testing.assert_array_equal(
        make(name).fit_pairs(items, rows, y, groups).coef_, make(name).fit(X, y, groups).coef_
    )


def test_options_reach_the_probes_that_have_them():
    assert make_probe("ridge", scaling="whiten", device="cuda").get_params()["scaling"] == "whiten"
    assert make_probe("mlp", device="cuda").get_params()["device"] == "cuda"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("svm", {}, f"Unknown probe 'svm'; known are {', '.join(PROBES)}"),
        ("logistic", {"scaling": "louder"}, f"Unknown scaling 'louder'; known are {', '.join(SCALINGS)}, auto"),
        ("mlp", {"scaling": "raw"}, "mlp always standardises"),
    ],
)
def test_unknown_probes_and_scalings_are_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        make_probe(name, **options)
