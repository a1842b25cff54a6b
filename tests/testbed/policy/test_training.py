"""A training goes on as if it had not stopped, moves nothing for a constant reward, and finds an easy reward."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from probing.errors import UserError
from probing.testbed.policy.training import Policy, PolicySettings, PolicyTraining, evaluations

TINY = PolicySettings(
    updates=2,
    prompts=2,
    group=3,
    sampling_steps=3,
    stochastic_steps=2,
    trained_steps=2,
    rank=2,
    evaluate_every=1,
    evaluated=2,
    evaluation_steps=2,
)


class Level:
    identity = "level"

    def __call__(self, batch):
        return batch.latents[:, 0].mean(dim=(1, 2)).double().numpy()


class Constant:
    identity = "constant"

    def __call__(self, batch):
        return np.full(len(batch.captions), 0.3)


def trained(settings, folder, reward=None):
    policy = Policy("testbed-xs", settings, device="cpu")
    PolicyTraining(policy, reward or Level(), folder).run()
    return policy


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return trained(TINY, folder), folder


def test_a_stopped_training_goes_on_bit_for_bit(whole, tmp_path, monkeypatch):
    policy, folder = whole
    update = PolicyTraining._update

    def stops(self, number):
        if number == 1:
            raise KeyboardInterrupt
        return update(self, number)

    monkeypatch.setattr(PolicyTraining, "_update", stops)
    with pytest.raises(KeyboardInterrupt):
        trained(TINY, tmp_path)
    monkeypatch.setattr(PolicyTraining, "_update", update)
    again = trained(TINY, tmp_path)
    for name, value in policy.parameters.items():
        assert torch.equal(again.parameters[name], value), name
    expected, found = evaluations(folder), evaluations(tmp_path)
    assert sorted(found) == [0, 1, 2] and all(torch.equal(found[step], expected[step]) for step in found)
    assert not torch.equal(found[0], found[2])


def test_another_setting_or_reward_is_refused(whole, tmp_path):
    shutil.copytree(whole[1], tmp_path / "copy")
    with pytest.raises(UserError, match="holds a training with other settings; give another folder, or remove it"):
        trained(replace(TINY, beta=0.5), tmp_path / "copy")
    with pytest.raises(UserError, match="holds a training with other settings"):
        trained(TINY, tmp_path / "copy", Constant())


def test_a_constant_reward_moves_nothing(tmp_path):
    settings = replace(TINY, updates=1)
    policy = Policy("testbed-xs", settings, device="cpu")
    before = {name: value.detach().clone() for name, value in policy.parameters.items()}
    training = PolicyTraining(policy, Constant(), tmp_path)
    # Decay of weights is no part of the objective.
    training._optimizer.param_groups[0]["weight_decay"] = 0.0
    training.run()
    assert all(torch.equal(policy.parameters[name], value) for name, value in before.items())


def test_the_reference_is_the_untrained_model(whole):
    policy, _ = whole
    words = policy.encode(["a small red circle"])
    latents = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    untrained = Policy("testbed-xs", TINY, device="cpu")
    with torch.no_grad():
        changed = policy.velocity(latents, words, 0.5)
        with policy.reference():
            reference = policy.velocity(latents, words, 0.5)
        assert torch.equal(policy.velocity(latents, words, 0.5), changed)
        # LoRA starts with a product of zero.
        torch.testing.assert_close(reference, untrained.velocity(latents, words, 0.5), rtol=1e-5, atol=1e-6)
    assert not torch.equal(reference, changed)


def test_guidance_reads_the_empty_prompt():
    plain, guided = (Policy("testbed-xs", replace(TINY, guidance=scale), device="cpu") for scale in (1.0, 3.0))
    words = plain.encode(["a small red circle"])
    latents = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        with_prompt = plain.velocity(latents, words, 0.5)
        without = plain.velocity(latents, plain.encode([""]), 0.5)
        expected = without + 3.0 * (with_prompt - without)
        torch.testing.assert_close(guided.velocity(latents, words, 0.5), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_an_easy_reward_rises(tmp_path):
    settings = replace(TINY, updates=24, prompts=4, group=12, sampling_steps=8, stochastic_steps=7, trained_steps=3,
                       rank=16, learning_rate=3e-3, evaluate_every=24, evaluated=48, evaluation_steps=8)  # fmt: skip
    trained(settings, tmp_path)
    first, last = (evaluations(tmp_path)[update][:, 0].mean(dim=(1, 2)) for update in (0, 24))
    difference = last - first
    # The same captions and noise: far beyond the standard error of the mean change.
    assert difference.mean() > 0.5 and difference.mean() > 5 * difference.std() / len(difference) ** 0.5


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"prompts": 3}, "expected an even number of prompts"),
        ({"group": 1}, "at least 2 pictures"),
        ({"evaluate_every": 0}, "every 0, .* expected at least 1 of each"),
        ({"noise_level": 0.0}, "Got noise level 0"),
        ({"stochastic_steps": 3}, "fewer than all: the last is deterministic"),
        ({"trained_steps": 3}, "Got 3 trained of 2 stochastic of 3 steps"),
    ],
)
def test_settings_are_checked(changes, match):
    with pytest.raises(UserError, match=match):
        replace(TINY, **changes)
