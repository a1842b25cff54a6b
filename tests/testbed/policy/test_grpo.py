"""The objective: advantages by hand, gradients against finite differences, a constant reward that moves nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probing.testbed.policy.flow_sde import rollout, sde_step
from probing.testbed.policy.grpo import advantages, divergence, policy_loss

SIGMAS = [1.0, 0.7, 0.4, 0.0]
GROUPS = np.repeat([0, 1], 4)


def test_advantages_are_standardised_within_groups():
    rewards = np.array([1.0, 2.0, 3.0, 4.0, 10.0, 10.0, 10.0, 14.0])
    found = advantages(rewards, GROUPS)
    for group in (0, 1):
        of_group = rewards[group == GROUPS]
        expected = (of_group - of_group.mean()) / (of_group.std() + 1e-4)
        np.testing.assert_allclose(found[group == GROUPS], expected)
    assert advantages(np.array([0.0] * 99 + [1.0]), np.zeros(100)).max() == 5
    with pytest.raises(ValueError, match="not finite"):
        advantages(np.array([1.0, np.nan]), np.zeros(2))


def test_clipped_loss_by_hand():
    ratio = torch.tensor([0.5, 1.5, 0.5, 1.5], dtype=torch.float64)
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
    loss = policy_loss(ratio.log(), torch.zeros(4, dtype=torch.float64), advantage, 0.2)
    assert float(loss) == pytest.approx(-np.mean([0.5, 1.2, -0.8, -1.5]))


class Toy:
    """A velocity with two weights: v = w·x + b."""

    def __init__(self):
        self.weights = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)

    def __call__(self, x, sigma, weights=None):
        w, b = self.weights if weights is None else weights
        return w * x + b * sigma

    def sample(self):
        noise = torch.randn(8, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return rollout(self, noise, SIGMAS, noise_level=0.7, generator=torch.Generator().manual_seed(1))

    def loss(self, made, advantage, weights=None, beta=0.0):
        total = torch.zeros((), dtype=torch.float64)
        for number in made.log_probabilities:
            x, sigma, following = made.states[number], SIGMAS[number], SIGMAS[number + 1]
            step = sde_step(self(x, sigma, weights), x, sigma, following, largest=SIGMAS[1])
            reference = sde_step(0.1 * x, x, sigma, following, largest=SIGMAS[1])
            density = step.log_probability(made.states[number + 1])
            total = total + policy_loss(density, made.log_probabilities[number], advantage, 0.2)
            total = total + beta * divergence(step, reference)
        return total


def test_gradient_is_that_of_finite_differences():
    toy = Toy()
    made, advantage = toy.sample(), torch.from_numpy(np.random.default_rng(2).normal(size=8))
    (gradient,) = torch.autograd.grad(toy.loss(made, advantage, beta=0.3), toy.weights)
    numbers = []
    for index in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[index] = 1e-6
        ends = [float(toy.loss(made, advantage, toy.weights.detach() + sign * step, beta=0.3)) for sign in (1, -1)]
        numbers.append((ends[0] - ends[1]) / 2e-6)
    np.testing.assert_allclose(gradient.numpy(), numbers, rtol=1e-5)


def test_gradient_is_that_of_the_expected_reward():
    """At the sampling policy the objective's gradient is the score-function estimate of the reward's, a mean over
    components: for a reward of the last stochastic state it is compared with the gradient through the sampling.
    """
    toy, items = Toy(), 200_000
    noise = torch.randn(items, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        made = rollout(toy, noise, SIGMAS, noise_level=0.7, generator=torch.Generator().manual_seed(1))
    reward = made.states[2][:, 0, 0, 0]
    centred = reward - reward.mean()
    (estimate,) = torch.autograd.grad(-toy.loss(made, centred), toy.weights)
    # The same states as functions of the weights: noise is what remains of each state.
    x = made.states[0]
    for number in (0, 1):
        step = sde_step(
            toy(made.states[number], SIGMAS[number]),
            made.states[number],
            SIGMAS[number],
            SIGMAS[number + 1],
            largest=SIGMAS[1],
        )
        drawn = ((made.states[number + 1] - step.mean) / step.deviation).detach()
        x = sde_step(toy(x, SIGMAS[number]), x, SIGMAS[number], SIGMAS[number + 1], largest=SIGMAS[1]).at(drawn)
    (expected,) = torch.autograd.grad(x.mean(), toy.weights)
    np.testing.assert_allclose(estimate.numpy(), expected.numpy(), atol=0.03)


def test_a_constant_reward_moves_nothing():
    toy = Toy()
    made = toy.sample()
    advantage = torch.from_numpy(advantages(np.full(8, 3.7), GROUPS))
    (gradient,) = torch.autograd.grad(toy.loss(made, advantage), toy.weights)
    assert torch.equal(gradient, torch.zeros(2, dtype=torch.float64))


def test_divergence_is_that_of_gaussians():
    first, second = (
        sde_step(
            torch.full((2, 1, 2, 2), v, dtype=torch.float64),
            torch.ones(2, 1, 2, 2, dtype=torch.float64),
            0.7,
            0.4,
            largest=0.9,
        )
        for v in (0.1, 0.4)
    )
    normal = [
        torch.distributions.Normal(step.mean, torch.full_like(step.mean, step.deviation)) for step in (first, second)
    ]
    exact = torch.distributions.kl_divergence(*normal).mean()
    assert float(divergence(first, second)) == pytest.approx(float(exact) * (0.7 - 0.4))
