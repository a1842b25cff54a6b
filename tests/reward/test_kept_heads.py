"""Every kind of probe is kept as arrays, and scores the same when it is made again."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from probing.probes import PROBES, describe_probe, make_probe, restore_probe
from probing.probes._modules import reward_module


def fitted(name):
    rng = np.random.default_rng(0)
    tokens = name == "attention"
    items = rng.normal(size=(80, 5, 6) if tokens else (80, 12)).astype(np.float32)
    if tokens:
        items[::3, 3:] = 0.0  # padding
    rows = np.arange(80).reshape(40, 2)
    strength = items.reshape(80, -1)[:, 0]
    y = (strength[rows[:, 0]] > strength[rows[:, 1]]).astype(float)
    probe = make_probe(name, device="cpu")
    if "epochs" in probe.get_params():
        probe.set_params(epochs=2, seeds=2, **({"hidden": (8, 8)} if name.startswith("mlp") else {}))
    return probe.fit_pairs(items, rows, y, np.arange(40)), items


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_made_again_scores_the_same(name):
    probe, items = fitted(name)
    described, arrays = describe_probe(probe)
    again = restore_probe(json.loads(json.dumps(described)), arrays)
    np.testing.assert_array_equal(again.rewards(items), probe.rewards(items))
    options, before = again.get_params(), probe.get_params()
    assert {**options, "device": None} == {**before, "device": None}


@pytest.mark.parametrize("name", PROBES)
def test_a_module_gives_the_rewards_and_their_gradient(name):
    probe, items = fitted(name)
    features = torch.from_numpy(items).requires_grad_(True)
    rewards = reward_module(probe)(features)
    np.testing.assert_allclose(rewards.detach().numpy(), probe.rewards(items), rtol=1e-5, atol=1e-6)
    (gradient,) = torch.autograd.grad(rewards.sum(), features)
    direction = np.random.default_rng(1).normal(size=items.shape).astype(np.float32)
    direction[(items == 0).all(axis=-1)] = 0.0
    step = 1e-2
    change = (probe.rewards(items + step * direction) - probe.rewards(items - step * direction)) / (2 * step)
    expected = (gradient.numpy() * direction).reshape(len(items), -1).sum(axis=1)
    np.testing.assert_allclose(change, expected, rtol=0.05, atol=5e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d, a: d.update({"class": "Pickle"}), "Got a head of class 'Pickle'"),
        (lambda d, a: d["options"].update({"unknown": 1}), "does not fit its description"),
        (lambda d, a: d.update({"shape": [3]}), "shape"),
        (lambda d, a: a.update({"coef": a["coef"] * np.nan}), "coef is not finite"),
        (lambda d, a: a.clear(), "does not fit its description"),
    ],
)
def test_a_damaged_description_is_refused(change, match):
    described, arrays = describe_probe(fitted("logistic")[0])
    change(described, arrays)
    with pytest.raises(ValueError, match=match):
        restore_probe(described, arrays)


def test_a_network_of_another_shape_is_refused():
    described, arrays = describe_probe(fitted("mlp")[0])
    with pytest.raises(ValueError, match="does not fit its description"):
        restore_probe(described | {"options": described["options"] | {"hidden": [9, 9]}}, arrays)


def test_the_learning_rate_rises_over_the_warmup():
    """With all of the training as warm-up, a network moves less than without."""
    moved = []
    for warmup in (0.0, 1.0):
        probe, items = fitted("mlp")
        probe.set_params(warmup=warmup, epochs=1, patience=5, seeds=1)
        rows = np.arange(80).reshape(40, 2)
        probe.fit_pairs(items, rows, (items[rows[:, 0], 0] > items[rows[:, 1], 0]).astype(float), np.arange(40))
        start = probe._head(probe.shape_)([torch.Generator().manual_seed(0)])
        moved.append(float((probe.network_.out.weight - start.out.weight).detach().abs().mean()))
    assert 0 < moved[1] <= moved[0]
