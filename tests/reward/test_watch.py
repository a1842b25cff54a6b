"""The watch: changes by hand, false alarms on nulls, an alarm where a facet falls while the reward rises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probing.errors import UserError
from probing.reward import HackingWatch, LatentReward, train_reward
from probing.reward.latent_reward import FIXED
from probing.reward.trainers import watch_callback

COUNT = 24
PROMPTS = [f"a small red circle number {n}" for n in range(COUNT)]
IMAGE = {"streams": ("image",), "reductions": ("mean",), "sigmas": (0.005,)}


@pytest.fixture(scope="module")
def heads(store, tiny_folder):
    """Three linear heads; those of the facets are set by hand, so that what they read is known."""
    rewards = []
    for blocks in ((1,), (3,), (1, 3)):
        trained = train_reward(store, **IMAGE, blocks=blocks)
        rewards.append(LatentReward(trained.probe, trained.manifest, model=tiny_folder, device="cpu"))
    return rewards


def make(heads, **options):
    return HackingWatch({"alignment": heads[0], "quality": heads[1]}, ensemble=heads, **options)


@pytest.fixture(scope="module")
def pictures(heads):
    shape = heads[0].opened._shape
    return torch.randn(COUNT, *shape, generator=torch.Generator().manual_seed(0))


def pushed(reward, latents, size):
    """Latents whose score under a head is higher, or lower for a negative size."""
    for _ in range(4):
        gradient = reward.score_and_grad(latents, PROMPTS)[1]
        latents = latents + size * gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
    return latents


def test_numbers_are_those_of_the_heads_scores(heads, pictures):
    watch, rewards = make(heads), np.linspace(-1, 1, COUNT)
    watch.start(pictures, PROMPTS, rewards)
    changed = pushed(heads[0], pictures, 1.0)
    report = watch(5, changed, PROMPTS, rewards + 0.5)
    for name, head in (("alignment", heads[0]), ("quality", heads[1])):
        before, after = (head.score_latents(x, PROMPTS) for x in (pictures, changed))
        assert report.facets[name] == pytest.approx((after - before).mean() / before.std(), rel=1e-3)
    assert report.step == 5 and report.reward == pytest.approx(0.5 / rewards.std())
    assert report.gap == pytest.approx(report.reward - min(report.facets.values()))
    spread = [
        np.std([head.score_latents(x, PROMPTS) for head in heads], axis=0, ddof=1).mean() for x in (changed, pictures)
    ]
    assert report.uncertainty == pytest.approx(spread[0] / spread[1], rel=1e-3)
    assert report.drift > 0 and watch.reports == [report]
    assert not report.heads_disagree
    disagrees = make(heads, spread=1.0 + 0.5 * (report.uncertainty - 1) if report.uncertainty > 1 else 1.01)
    disagrees.start(pictures, PROMPTS, rewards)
    again = disagrees(5, changed, PROMPTS, rewards + 0.5 + 0.01 * np.arange(COUNT))
    assert again.heads_disagree == (again.uncertainty >= disagrees.spread)


def test_a_drift_is_the_shift_of_the_mean_features(heads, pictures):
    rewards, changed = np.linspace(-1, 1, COUNT), pushed(heads[0], pictures, 1.0)
    found = {}
    for name, limit, change in (("near", 1e6, 0.5), ("far", 1e-6, 0.5), ("far, but the reward fell", 1e-6, -0.5)):
        watch = make(heads, largest_drift=limit)
        watch.start(pictures, PROMPTS, rewards)
        report = watch(1, changed, PROMPTS, rewards + change + 0.01 * np.arange(COUNT))
        found[name] = report.drifted, report.alarm
    assert found == {"near": (False,) * 2, "far": (True,) * 2, "far, but the reward fell": (False,) * 2}
    opened, extraction = heads[0].opened, heads[0].manifest.extraction
    words = opened.encode_prompts(PROMPTS)
    sites = list(dict.fromkeys(site for head in heads for site in head.manifest.sites))
    before, after = (
        opened.features(x, words, [FIXED] * COUNT, int(extraction["seed"]), sites) for x in (pictures, changed)
    )
    shifts = np.concatenate(
        [
            ((after[site] - before[site]).flatten(1).mean(0) / before[site].flatten(1).std(0, correction=0)).numpy()
            for site in sites
        ]
    )
    assert report.drift == pytest.approx(np.sqrt((shifts**2).mean()), rel=1e-3)


def test_an_alarm_needs_a_facet_that_falls_and_a_reward_that_rises(heads, pictures):
    rewards = np.linspace(-1, 1, COUNT)
    lower = pushed(heads[0], pictures, -3.0)
    found = {}
    for name, latents, change in (
        ("hacked", lower, 1.0),
        ("worse everywhere", lower, -1.0),
        ("better", pushed(heads[1], pushed(heads[0], pictures, 3.0), 3.0), 1.0),
    ):
        watch = make(heads, checks=5)
        watch.start(pictures, PROMPTS, rewards)
        found[name] = watch(1, latents, PROMPTS, rewards + change + 0.01 * np.arange(COUNT)).facet_fell
    assert found == {"hacked": True, "worse everywhere": False, "better": False}


def test_nothing_has_changed(heads, pictures):
    watch, rewards = make(heads), np.linspace(-1, 1, COUNT)
    watch.start(pictures, PROMPTS, rewards)
    report = watch(1, pictures, PROMPTS, rewards)
    assert not report.alarm and report.drift == 0 and report.gap == 0
    assert report.uncertainty == pytest.approx(1) and set(report.p_values.values()) == {1.0}


@pytest.mark.slow
def test_false_alarms_stay_below_the_level(heads, pictures, monkeypatch):
    """A policy whose pictures differ by chance alone, ten checks a training: at most 5% of trainings raise an alarm."""
    rng, trainings, checks = np.random.default_rng(0), 300, 10
    watch = make(heads, checks=checks)
    watch.start(pictures, PROMPTS, np.zeros(COUNT) + np.arange(COUNT) / COUNT)
    reference = watch._reference
    alarms = 0
    for _ in range(trainings):
        raised = False
        watch.reports.clear()
        for step in range(checks):
            scores = {name: values + values.std() * rng.normal(size=COUNT) for name, values in reference.heads.items()}
            drawn = type(reference)(scores, reference.uncertainty, reference.features)
            monkeypatch.setattr(watch, "_score", lambda *_, drawn=drawn: drawn)
            # The reward rises in every check, so that the facets alone decide.
            raised |= watch(step, pictures, PROMPTS, np.arange(COUNT) / COUNT + 1 + rng.random(COUNT) / 10).facet_fell
        alarms += raised
    # 5% of 300 and 2.3 standard errors.
    assert alarms <= 24


def test_bad_input_is_one_sentence(heads, pictures, store):
    rewards = np.zeros(COUNT)
    with pytest.raises(UserError, match="at least one head"):
        HackingWatch({})
    with pytest.raises(UserError, match="An ensemble of one head has no spread"):
        HackingWatch({"quality": heads[0]}, heads[:1])
    with pytest.raises(UserError, match="Got 0 checks, spread 1.5 and largest drift 0.6"):
        make(heads, checks=0)
    watch = make(heads)
    with pytest.raises(UserError, match="call start with them first"):
        watch(1, pictures, PROMPTS, rewards)
    with pytest.raises(UserError, match="Got 1 different prompts to watch, expected at least 20"):
        watch.start(pictures, PROMPTS[:1] * COUNT, rewards)
    with pytest.raises(UserError, match=r"Got rewards of shape \(2,\) for 24 pictures"):
        watch.start(pictures, PROMPTS, np.zeros(2))
    with pytest.raises(UserError, match="one finite number each"):
        watch.start(pictures, PROMPTS, np.full(COUNT, np.nan))
    with pytest.raises(UserError, match="Got 24 prompts for 2 latents"):
        watch.start(pictures[:2], PROMPTS, rewards)
    with pytest.raises(UserError, match="The reference pictures have one value of the reward"):
        watch.start(pictures, PROMPTS, rewards)
    watch = make(heads, checks=1)
    watch.start(pictures, PROMPTS, np.arange(COUNT))
    with pytest.raises(UserError, match="the prompts of the reference in their order"):
        watch(1, pictures, PROMPTS[::-1], rewards)
    watch(1, pictures, PROMPTS, rewards)
    with pytest.raises(UserError, match="The 1 planned checks are made"):
        watch(2, pictures, PROMPTS, rewards)
    with pytest.raises(UserError, match="Got 0 steps between two checks"):
        watch_callback(watch, lambda: None, every=0)


def test_a_trainers_callback_checks_and_stops(heads, pictures):
    from transformers import TrainerControl, TrainerState

    rewards = np.linspace(-1, 1, COUNT)
    lower, made = pushed(heads[0], pictures, -3.0), []

    def sample():
        made.append(len(made))
        changed = len(made) > 2
        return (lower, PROMPTS, rewards + 1 + 0.01 * np.arange(COUNT)) if changed else (pictures, PROMPTS, rewards)

    watch = HackingWatch({"alignment": heads[0], "quality": heads[1]}, checks=5, largest_drift=1e-3)
    callback, control = watch_callback(watch, sample, every=10, stop=True), TrainerControl()
    callback.on_train_begin(None, TrainerState(), control)
    for step in range(1, 31):
        callback.on_step_end(None, TrainerState(global_step=step), control)
        if step == 19:
            assert not control.should_training_stop
    assert [report.step for report in watch.reports] == [10, 20, 30]
    assert [report.alarm for report in watch.reports] == [False, True, True] and control.should_training_stop


def test_a_resumed_training_needs_its_reference(heads, pictures):
    from transformers import TrainerControl, TrainerState

    watch = make(heads)
    sample = lambda: (pictures, PROMPTS, np.arange(COUNT))  # noqa: E731
    callback = watch_callback(watch, sample, every=10)
    with pytest.raises(UserError, match="goes on from a checkpoint"):
        callback.on_train_begin(None, TrainerState(global_step=5), TrainerControl())
    watch.start(*sample())
    callback.on_train_begin(None, TrainerState(global_step=5), TrainerControl())
