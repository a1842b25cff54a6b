"""Gradients by noisy latents against finite differences, and samplers that they guide."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probing.backbones.sampling import denoise
from probing.errors import UserError
from probing.features.noise import add_noise, item_noise
from probing.interventions import guide
from probing.reward import LatentReward, RewardGradient, train_reward

IMAGE = {"blocks": (1, 3), "streams": ("image",), "reductions": ("mean",)}


@pytest.fixture(scope="module")
def rewards(store, tiny_folder):
    trained = {sigma: train_reward(store, **IMAGE, sigmas=(sigma,)) for sigma in (0.005, 0.6)}
    return {s: LatentReward(r.probe, r.manifest, model=tiny_folder, device="cpu") for s, r in trained.items()}


@pytest.fixture(scope="module")
def given(rewards):
    reader = rewards[0.6].opened
    latents = torch.randn(3, *reader._shape, generator=torch.Generator().manual_seed(0))
    return latents, ["a small red circle", "two blue stars", "a large green cross"]


def test_noisy_scores_are_those_of_the_noise_that_was_added(rewards, given):
    latents, prompts = given
    keys = ["a", "b", "c"]
    reward = rewards[0.6]
    noise = torch.from_numpy(
        np.stack([item_noise(reward.manifest.extraction["seed"], k, latents.shape[1:]) for k in keys])
    )
    noisy = add_noise(latents, noise, 0.6)
    scores, _ = reward.noisy_score_and_grad(noisy, 0.6, prompts)
    np.testing.assert_allclose(scores, reward.score_latents(latents, prompts, keys=keys), rtol=1e-4, atol=1e-5)


def test_noisy_gradient_is_that_of_finite_differences(rewards, given):
    latents, prompts = given
    reward, step = rewards[0.6], 1e-2
    _, gradient = reward.noisy_score_and_grad(latents, 0.6, prompts)
    direction = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    up, down = (reward.noisy_score_and_grad(latents + sign * step * direction, 0.6, prompts)[0] for sign in (1, -1))
    expected = (gradient * direction).flatten(1).sum(1).numpy()
    np.testing.assert_allclose((up - down) / (2 * step), expected, rtol=0.02, atol=5e-3 * np.abs(expected).max())


def test_the_nearest_level_reads_the_noisy_latents(rewards, given):
    latents, prompts = given
    words = rewards[0.6].opened.encode_prompts(prompts)
    gradient = RewardGradient(list(rewards.values()), noise_aware=True)
    for sigma, nearest in ((0.1, 0.005), (0.9, 0.6)):
        expected = rewards[nearest].noisy_score_and_grad(latents, sigma, conditioning=words)[1]
        torch.testing.assert_close(gradient(latents, latents, words, sigma), expected)
    clean = RewardGradient(rewards[0.005])
    expected = rewards[0.005].score_and_grad(2 * latents, conditioning=words)[1]
    torch.testing.assert_close(clean(latents, 2 * latents, words, 0.5), expected)


def test_a_reward_that_was_not_opened_guides(store, tiny_folder, given):
    noise, prompts = given
    trained = train_reward(store, **IMAGE, sigmas=(0.005,))
    reward = LatentReward(trained.probe, trained.manifest, model=tiny_folder, device="cpu")
    gradient = RewardGradient(reward)
    words = reward.opened.encode_prompts(prompts)
    with torch.inference_mode():
        pushed = gradient(noise, noise, words, 0.5)
    torch.testing.assert_close(pushed, reward.score_and_grad(noise, conditioning=words)[1])


@pytest.mark.parametrize("noise_aware", [False, True])
def test_guiding_raises_the_reward(rewards, given, noise_aware):
    noise, prompts = given
    reward = rewards[0.6 if noise_aware else 0.005]
    backbone = reward.opened.backbone
    words, empty = reward.opened.encode_prompts(prompts), reward.opened.encode_prompts([""])
    gradient = RewardGradient([reward], noise_aware=noise_aware)
    finals = []
    for scale in (-1.0, 0.0, 1.0):
        velocity = guide(backbone.velocity, gradient, scale, len(noise))
        *_, last = denoise(backbone, noise, words, empty, steps=6, guidance=2.0, velocity=velocity)
        finals.append(reward.score_latents(last.latents, conditioning=words))
    assert (finals[0] < finals[1]).all() and (finals[1] < finals[2]).all()


def test_rewards_that_cannot_guide_are_refused(rewards, store):
    with pytest.raises(UserError, match="Got 2 rewards; without noise_aware a gradient is that of one"):
        RewardGradient(list(rewards.values()))
    with pytest.raises(UserError, match="There is no reward to guide by"):
        RewardGradient([], noise_aware=True)
    both = train_reward(store, **IMAGE)
    with pytest.raises(UserError, match="A noise-aware reward reads one noise level"):
        RewardGradient([both], noise_aware=True)
