"""The neural probes: planted truth, independence of seeds, streaming, stopping."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm
from torch import nn
from torch.nn import functional as F

from probing.probes import AttentionProbe, LogisticProbe, MLPProbe
from probing.probes._heads import LOSSES, AttentionHead, MLPHead
from probing.probes._training import network_margins


def make_items(seed=0, pairs=1200, channels=6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2 * pairs, channels)), np.arange(2 * pairs).reshape(-1, 2), np.arange(pairs) // 2, rng


def choose(rewards, rows, rng, strength=6.0):
    return (rng.random(len(rows)) < expit(strength * (rewards[rows[:, 0]] - rewards[rows[:, 1]]))).astype(float)


def accuracy(probe, items, rows, y):
    rewards = probe.decision_function(items)
    return np.mean((rewards[rows[:, 0]] > rewards[rows[:, 1]]) == (y > 0.5))


def test_a_planted_xor_is_found_by_the_mlp_and_not_by_the_logistic_probe():
    items, rows, groups, rng = make_items()
    y = choose(np.sign(items[:, 0] * items[:, 1]), rows, rng)
    train, test = np.arange(800), np.arange(800, 1200)
    mlp = MLPProbe(seeds=2).fit(rows[train], y[train], groups[train], items=items)
    linear = LogisticProbe().fit(items[rows[train, 0]] - items[rows[train, 1]], y[train], groups[train])
    # Two items of equal sign have equal rewards, so half of the choices are coins: the ceiling is near 75%.
    assert accuracy(mlp, items, rows[test], y[test]) > 0.65
    assert abs(accuracy(linear, items, rows[test], y[test]) - 0.5) < 4 * 0.5 / np.sqrt(len(test))


def test_a_planted_linear_reward_is_learned():
    items, rows, groups, rng = make_items(1, 2400)
    reward = items @ np.array([1.0, -1.0, 0.5, 0, 0, 0]) / 3
    y = choose(reward, rows, rng)
    train, test = np.arange(1600), np.arange(1600, 2400)
    best = np.mean((reward[rows[test, 0]] > reward[rows[test, 1]]) == (y[test] > 0.5))
    for loss in LOSSES:
        probe = MLPProbe(hidden=(16,), loss=loss, seeds=2).fit(rows[train], y[train], groups[train], items=items)
        assert accuracy(probe, items, rows[test], y[test]) > best - 0.03


def test_attention_finds_the_marked_token():
    """The reward is in the marked token; the mean over tokens mixes it with all tokens."""
    rng = np.random.default_rng(2)
    pairs, tokens = 1500, 8
    items = rng.normal(size=(2 * pairs, tokens, 4))
    marked = rng.integers(tokens, size=2 * pairs)
    items[..., 0] = 0.1 * items[..., 0]
    items[np.arange(2 * pairs), marked, 0] = 3.0
    reward = items[np.arange(2 * pairs), marked, 1]
    rows = np.arange(2 * pairs).reshape(-1, 2)
    y = choose(reward, rows, rng)
    train, test = np.arange(1100), np.arange(1100, 1500)
    attention = AttentionProbe(seeds=2, width=16, heads=2, queries=2).fit(rows[train], y[train], items=items)
    mean = items.mean(axis=1)
    linear = LogisticProbe().fit(mean[rows[train, 0]] - mean[rows[train, 1]], y[train])
    assert accuracy(attention, items, rows[test], y[test]) > 0.9
    assert accuracy(linear, mean, rows[test], y[test]) < 0.8


@pytest.mark.parametrize("kind", ["mlp", "attention"])
def test_seeds_trained_together_are_seeds_trained_alone(kind):
    items, rows, groups, rng = make_items(3, 150)
    if kind == "attention":
        items = items.reshape(len(items), 3, 2)
    y = rng.integers(0, 2, len(rows)).astype(float)
    make = {"mlp": lambda **kw: MLPProbe(hidden=(8,), **kw), "attention": lambda **kw: AttentionProbe(width=8, **kw)}
    same = {"epochs": 4, "batch_size": 32}
    together = make[kind](seeds=3, **same).fit(rows, y, groups, items=items).decision_functions(items)
    for index in range(3):
        alone = make[kind](seeds=1, seed=index, **same)
        # The validation part goes by the first seed: give it the same one.
        alone._split = make[kind](seeds=1, seed=0)._split
        rewards = alone.fit(rows, y, groups, items=items).decision_functions(items)[:, 0]
        # A constant of the reward cancels in every margin, so it is arbitrary.
        np.testing.assert_allclose(rewards - rewards[0], together[:, index] - together[0, index], rtol=1e-3, atol=1e-4)


def test_features_on_disk_give_the_same_rewards(tmp_path):
    items, rows, groups, rng = make_items(4, 100)
    y = choose(items[:, 0], rows, rng)
    path = tmp_path / "items.npy"
    np.save(path, items.astype(np.float32))

    class OnDisk:
        """Record the largest number of rows in one read."""

        def __init__(self):
            self.array, self.most = np.load(path, mmap_mode="r"), 0
            self.shape = self.array.shape

        def __getitem__(self, wanted):
            assert (np.diff(wanted) > 0).all()
            self.most = max(self.most, len(wanted))
            return self.array[wanted]

    on_disk = OnDisk()
    options = {"hidden": (8,), "seeds": 2, "epochs": 3, "batch_size": 16}
    streamed = MLPProbe(**options).fit(rows, y, groups, items=on_disk)
    whole = MLPProbe(**options).fit(items.astype(np.float32)[rows], y, groups)
    np.testing.assert_allclose(
        streamed.decision_function(items.astype(np.float32)),
        whole.decision_function(items.astype(np.float32)),
        rtol=1e-5,
        atol=1e-6,
    )


def test_standardisation_uses_the_training_part_alone():
    items, rows, groups, rng = make_items(5, 200)
    probe = MLPProbe(hidden=(4,), seeds=1, epochs=1)
    train, held_out = probe._split(groups)
    assert not set(groups[train]) & set(groups[held_out])
    items[rows[held_out]] += 1000.0
    y = rng.integers(0, 2, len(rows)).astype(float)
    probe.fit(rows, y, groups, items=items)
    training = items[rows[train].ravel()]
    np.testing.assert_allclose(probe.mean_, training.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(probe.scale_, training.std(0), rtol=1e-5)


def test_held_out_margins_are_of_the_validation_part():
    items, rows, groups, rng = make_items(9, 200)
    y = choose(items[:, 0], rows, rng)
    probe = MLPProbe(hidden=(8,), seeds=2, epochs=3).fit(rows, y, groups, items=items)
    train, held_out = probe._split(groups)
    assert np.isnan(probe.cv_margins_[train]).all()
    rewards = probe.decision_function(items)
    np.testing.assert_allclose(
        probe.cv_margins_[held_out], rewards[rows[held_out, 0]] - rewards[rows[held_out, 1]], atol=1e-5
    )


def test_training_stops_early_and_keeps_the_best_epoch():
    items, rows, groups, rng = make_items(6, 200)
    y = rng.integers(0, 2, len(rows)).astype(float)
    probe = MLPProbe(hidden=(256,), seeds=2, epochs=60, patience=3, learning_rate=1e-2).fit(
        rows, y, groups, items=items
    )
    # Choices are random, so the best epoch is early, and its loss is close to that of a coin.
    assert (probe.epochs_ <= 10).all()
    assert (probe.validation_loss_ < 1.2 * np.log(2)).all()
    assert abs(probe.cv_accuracy_ - 0.5) < 0.25


def test_the_heads_equal_torch_modules():
    generator = torch.Generator().manual_seed(0)
    head = MLPHead([generator], (5,), (7, 3))
    plain = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3), nn.GELU(), nn.Linear(3, 1, bias=False))
    for layer, linear in zip(head.layers, plain[:4:2], strict=True):
        linear.weight.data, linear.bias.data = layer.weight[0].T.clone(), layer.bias[0, 0].clone()
    plain[4].weight.data = head.out.weight[0].T.clone()
    x = torch.randn(4, 5)
    torch.testing.assert_close(head(x[None])[0], plain(x)[:, 0])
    attention = AttentionHead([generator], (6, 5), queries=2, width=8, heads=2, sources=(4, 2))
    reference = nn.MultiheadAttention(8, 2, batch_first=True, bias=False)
    reference.in_proj_weight.data, reference.out_proj.weight.data = torch.eye(8).repeat(3, 1), torch.eye(8)
    x, padding = torch.randn(3, 6, 5), torch.zeros(3, 6, dtype=torch.bool)
    padding[0, 4:] = True
    mark = attention.source[0].repeat_interleave(torch.tensor([4, 2]), dim=0)
    keys, values = (
        F.linear(x, part.weight[0].T, part.bias[0, 0]) + mark for part in (attention.keys, attention.values)
    )
    gathered, _ = reference(attention.queries.expand(3, -1, -1), keys, values, key_padding_mask=padding)
    expected = F.linear(gathered.flatten(1), attention.out.weight[0].T)[:, 0]
    torch.testing.assert_close(attention(x[None], padding[None])[0], expected)


def test_the_losses_equal_their_definitions():
    margins = torch.tensor([[-3.0, 0.0, 0.5, 40.0, -40.0]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[1.0, 0.5, 0.2, 0.0, 1.0]], dtype=torch.float64)
    p = [quad(norm.pdf, -np.inf, m / np.sqrt(2))[0] for m in (-3.0, 0.0, 0.5)]
    expected = [1 - np.sqrt(t * q) - np.sqrt((1 - t) * (1 - q)) for t, q in zip((1.0, 0.5, 0.2), p, strict=True)]
    losses = LOSSES["fidelity"](margins, y)
    np.testing.assert_allclose(losses[0, :3].detach(), expected, atol=1e-8)
    losses.sum().backward()
    assert margins.grad.isfinite().all()
    bt = LOSSES["bradley-terry"](margins, y)[0, :3].detach()
    m, t = np.array([-3.0, 0.0, 0.5]), np.array([1.0, 0.5, 0.2])
    np.testing.assert_allclose(bt, -t * np.log(expit(m)) - (1 - t) * np.log(expit(-m)))


def test_a_head_trained_by_noise_level_reads_each_level_alone_and_all_together():
    """The first token shows the reward at σ = 0.1, the second at σ = 0.9 under more noise; the third shows nothing."""
    rng = np.random.default_rng(5)
    pairs = 1500
    reward, rows = rng.normal(size=2 * pairs), np.arange(2 * pairs).reshape(-1, 2)
    items = rng.normal(size=(2 * pairs, 3, 4))
    items[:, 0, 0] = reward + 0.2 * items[:, 0, 0]
    items[:, 1, 0] = reward + items[:, 1, 0]
    items[:, 2] *= 0.1
    y = choose(reward, rows, rng)
    train, test = np.arange(1000), np.arange(1000, pairs)
    options = {"loss": "fidelity", "width": 16, "heads": 2, "queries": 2, "seeds": 2, "epochs": 20}
    probe = AttentionProbe(**options, sources=(1, 2), sigmas=(0.1, 0.9), by_noise=True)
    probe.fit(rows[train], y[train], items=items)

    shown = [np.where(np.isin([0, 1, 2], tokens)[:, None], items, 0.0) for tokens in ([0], [1, 2])]
    alone = [accuracy(probe, of_level, rows[test], y[test]) for of_level in shown]
    best = [np.mean((items[rows[test, 0], k, 0] > items[rows[test, 1], k, 0]) == (y[test] > 0.5)) for k in (0, 1)]
    assert alone[0] > best[0] - 0.04 and alone[1] > best[1] - 0.04
    assert accuracy(probe, items, rows[test], y[test]) > best[1]
    for level, of_level, sigma in zip(probe._levels(), shown, (0.1, 0.9), strict=True):
        margins = network_margins(probe, probe.network_, items, rows[test], "cpu", level).numpy().T
        expected = probe.pair_margins(of_level, rows[test]) / np.sqrt(2 * sigma**2 + 0.05)
        np.testing.assert_allclose(margins, expected, atol=1e-4)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("probe", "change", "message"),
    [
        (MLPProbe(loss="hinge"), {}, "known are bradley-terry, fidelity"),
        (MLPProbe(), {"y": np.full(40, 2.0)}, "labels outside"),
        (MLPProbe(), {"X": np.zeros((40, 3), dtype=int)}, "row numbers of items"),
        (MLPProbe(), {"X": np.full((40, 2), 99)}, "expected 0 to 79"),
        (MLPProbe(), {"groups": np.zeros(40)}, "at least 2 to set one aside"),
        (MLPProbe(), {"items": np.full((80, 6), np.inf)}, "not finite"),
        (AttentionProbe(), {}, "extract the reduction grid4 or tokens"),
        (AttentionProbe(width=10), {"items": np.ones((80, 4, 3))}, "multiple of the heads"),
        (AttentionProbe(by_noise=True), {"items": np.ones((80, 4, 3))}, "expected fidelity"),
        (AttentionProbe(by_noise=True, loss="fidelity"), {"items": np.ones((80, 4, 3))}, "give sources and sigmas"),
        (AttentionProbe(sources=(1, 2)), {"items": np.ones((80, 4, 3))}, "count each source's tokens"),
    ],
)
def test_bad_input_is_refused(probe, change, message):
    items, rows, groups, _ = make_items(7, 40)
    given = {"X": rows, "y": np.ones(40), "groups": groups, "items": items, **change}
    with pytest.raises(ValueError, match=message):
        probe.fit(**given)


def test_features_of_another_shape_are_refused():
    items, rows, groups, _ = make_items(8, 40)
    probe = MLPProbe(seeds=1, epochs=1).fit(rows, np.ones(40), groups, items=items)
    with pytest.raises(ValueError, match=r"expected \(row, 6\)"):
        probe.decision_function(items[:, :3])
