"""Planted truth: a model whose output uses one direction and not another, though both can be read alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from probing.analysis import causal
from probing.analysis.engine import Site
from probing.backbones import load_backbone, resolve
from probing.errors import UserError
from probing.interventions import Eraser, erase, steer
from tests.fakes.planted_store import PlantedStore, planted_pairs
from tests.fakes.tiny_sd3 import BLOCKS, HEAD_WIDTH, HEADS, T5_LENGTH, build_pipeline

WIDTH, CAPTIONS = HEADS * HEAD_WIDTH, [f"a small circle number {n}" for n in range(40)]
USED, UNUSED = (np.eye(WIDTH)[a] - np.eye(WIDTH)[b] for a, b in ((3, 4), (10, 11)))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """Blocks pass image tokens on unchanged; the velocity is the token's part along one direction alone."""
    pipeline = build_pipeline()
    transformer = pipeline.transformer
    with torch.no_grad():
        for block in transformer.transformer_blocks:
            layers = [block.attn.to_out[0], block.ff.net[2]]
            layers += [block.attn2.to_out[0]] if getattr(block, "attn2", None) is not None else []
            for layer in layers:
                layer.weight.zero_()
                layer.bias.zero_()
        for layer in (transformer.norm_out.linear, transformer.proj_out):
            layer.weight.zero_()
            layer.bias.zero_()
        transformer.proj_out.weight[:] = torch.from_numpy(USED).float()
    folder = tmp_path_factory.mktemp("planted") / "model"
    pipeline.save_pretrained(folder)
    return load_backbone(
        resolve(str(folder)), device=torch.device("cpu"), compute_dtype=torch.float32, t5_length=T5_LENGTH
    )


class Judge:
    identity = "test"

    def __init__(self):
        self.calls = []

    def __call__(self, latents, captions):
        self.calls.append(len(captions))
        return scores_of(latents)


def scores_of(latents):
    return pd.DataFrame({"level": latents.flatten(1).mean(dim=1), "spread": latents.flatten(1).std(dim=1)}).astype(
        float
    )


@pytest.fixture(scope="module")
def generate(backbone, tmp_path_factory):
    folder, settings = tmp_path_factory.mktemp("generated"), causal.GenerationSettings(steps=3)

    def run(changes, captions=CAPTIONS, judge=None):
        plain = causal.Change({"dose": 0.0})
        return causal.generate(backbone, [plain, *changes], captions, judge or Judge(), settings, folder=folder)

    return run


def labelled(name, block, dose):
    return {"facet": "planted", "probe": name, "control": "trained", "seed": 0, "block": block, "dose": dose}


def test_the_curve_tells_the_used_direction_from_the_other(generate):
    changes = [
        causal.Change(
            labelled(name, block, dose), {block: steer(torch.from_numpy(vector).float(), dose)}, vector.tobytes()
        )
        for name, vector in (("used", USED), ("unused", UNUSED))
        for block in range(BLOCKS)
        for dose in (0.2, -0.2)
    ]
    effects = causal.steering_effects(generate(changes))
    level = effects[effects["metric"] == "level"].set_index("probe")
    # The sampler goes from noise to picture, against the velocity.
    assert (level.loc["used", "verdict"] == "below").all() and (level.loc["used", "effect"] < -0.02).all()
    assert level.loc["unused", "effect"].abs().max() < 0.1 * level.loc["used", "effect"].abs().min()
    # Every block passes tokens on, so each has the same effect.
    np.testing.assert_allclose(level.loc["used", "effect"], level.loc["used", "effect"].iloc[0], rtol=1e-3)


def test_erasing_the_used_direction_destroys_and_the_other_leaves(generate):
    changes = []
    for name, vector in (("used", USED), ("unused", UNUSED)):
        unit = vector / np.linalg.norm(vector)
        eraser = Eraser(np.outer(unit, unit), np.zeros(WIDTH))
        changes.append(causal.Change(labelled(name, 1, 1.0), {1: erase(eraser)}, vector.tobytes()))
    scores = generate(changes)
    effects = causal.erasure_effects(scores)
    spread = effects[effects["metric"] == "spread"].set_index("probe")["effect"]
    plain = scores[(scores["dose"] == 0) & (scores["metric"] == "spread")]["value"].mean()
    moved = abs(spread / plain)
    assert moved["used"] > 0.02 and moved["unused"] < 0.2 * moved["used"]


def test_what_was_generated_is_used_again_and_nothing_else(generate):
    judge = Judge()

    def push(vector):
        return [
            causal.Change(labelled("x", 0, 1.0), {0: steer(torch.from_numpy(vector).float(), 1.0)}, vector.tobytes())
        ]

    captions = CAPTIONS[:3]
    first = generate(push(USED), captions, judge)
    pd.testing.assert_frame_equal(generate(push(USED), captions, judge), first)
    assert judge.calls == [3, 3]
    other = generate(push(UNUSED), captions, judge)
    assert judge.calls == [3, 3, 3] and not other.equals(first)
    another = Judge()
    another.identity = "another"
    generate(push(USED), captions, another)
    assert another.calls == [3, 3]


def test_changes_and_settings_are_checked():
    with pytest.raises(ValueError, match="Got edits without content"):
        causal.Change({}, {0: steer(torch.ones(WIDTH), 1.0)})
    with pytest.raises(UserError, match="Got 0 steps"):
        causal.GenerationSettings(steps=0)
    with pytest.raises(UserError, match=r"levels 0.5 to 1.5, expected .* within \[0, 1\]"):
        causal.GenerationSettings(levels=(0.5, 1.5))


@pytest.fixture(scope="module")
def planted():
    pairs = planted_pairs(train=600)
    site = Site("image", "mean", 0.1, 2)
    stores = [PlantedStore(pairs, lambda *_: (2.0, 2.0), num_blocks=4, seed=seed) for seed in (0, 1)]
    found = causal.directions(stores[0], pairs, site, "all", "logistic", seeds=2, random_init=stores[1])
    return stores[0], pairs, list(found)


def test_the_direction_of_a_probe_is_the_planted_one(planted):
    store, _, found = planted
    by_control = {(one.control, one.seed): one.vector for one in found}
    trained = by_control["trained", 0]
    units = {key: vector / np.linalg.norm(vector) for key, vector in by_control.items()}
    # Both parts of the reward lie in one channel each.
    strongest = np.sort(np.abs(units["trained", 0]))[::-1]
    assert strongest[1] > 3 * strongest[2]
    features = store.read("image", "mean", 0.1, 2)
    assert np.linalg.norm(trained) == pytest.approx(float((features @ units["trained", 0]).std()), rel=0.1)
    for key, vector in by_control.items():
        assert np.linalg.norm(vector) == pytest.approx(np.linalg.norm(trained))
        if key[0] in ("shuffled", "random"):
            assert abs(units[key] @ units["trained", 0]) < 0.9
    assert units["random", 0].mean() == pytest.approx(0, abs=1e-12)
    assert set(by_control) == {
        ("trained", 0),
        ("shuffled", 0),
        ("shuffled", 1),
        ("random", 0),
        ("random", 1),
        ("random-init", 0),
    }


def steered(effect_of, captions=60, seed=0):
    """Scores in which steering block b moves the metric by effect_of[b], beside noise of each caption."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=captions)
    rows = [pd.DataFrame({"caption": range(captions), "value": base, "dose": 0.0, "metric": "m"})]
    for block, effect in enumerate(effect_of):
        for dose in (1.0, -1.0):
            values = base + dose * effect - 0.2 + 0.1 * rng.normal(size=captions)
            labels = {"facet": "f", "probe": "p", "control": "trained", "seed": 0, "block": block, "dose": dose}
            rows.append(pd.DataFrame({"caption": range(captions), "value": values, "metric": "m", **labels}))
    return pd.concat(rows, ignore_index=True)


def test_effect_and_damage_are_apart():
    effects = causal.steering_effects(steered([0.0, 0.3, -0.3])).set_index("block")
    assert list(effects["verdict"]) == ["not distinguished", "above", "below"]
    np.testing.assert_allclose(effects["effect"], [0.0, 0.3, -0.3], atol=0.06)
    np.testing.assert_allclose(effects["damage"], 0.2, atol=0.06)
    assert ((effects["ci_low"] <= effects["effect"]) & (effects["effect"] <= effects["ci_high"])).all()


@pytest.mark.parametrize(("order", "expected"), [((0, 1, 2, 3, 4, 5), 1.0), ((5, 4, 3, 2, 1, 0), -1.0)])
def test_rank_correlation_of_planted_orders(order, expected):
    rng = np.random.default_rng(0)
    reading = pd.DataFrame({"prompt_id": [f"p{n}" for n in range(400)]})
    for block in range(6):
        reading[block] = (rng.random(400) < 0.5 + 0.08 * block).astype(float)
    scores = steered([0.1 * rank for rank in order])
    found = causal.rank_correlations(scores, {"f": reading}, metric_of={"f": "m"}, resamples=300).iloc[0]
    assert found["correlation"] == pytest.approx(expected, abs=0.15)
    assert found["ci_low"] <= found["correlation"] <= found["ci_high"]
    assert found["ci_low"] * expected > 0.3 if expected > 0 else found["ci_high"] < -0.3


def test_erasers_leave_nothing_to_read():
    pairs = planted_pairs(train=600, test=400)
    store = PlantedStore(pairs, lambda *_: (2.0, 2.0), num_blocks=4)
    found = {one.control: one for one in causal.erasers(store, pairs, Site("image", "mean", 0.1, 2), "all")}
    assert found["trained"].reading.high < 0.6 and found["trained"].reading.low < 0.5
    for control in ("shuffled", "random"):
        assert found[control].reading.low > 0.65
        # Each control takes away a direction too.
        assert np.linalg.matrix_rank(found[control].eraser.matrix) == 1
