"""Steps of the stochastic sampler against closed forms, torch's densities and a flow whose marginals are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probing.testbed.policy.flow_sde import rollout, sde_step

SHAPE = (3, 2, 4, 4)


def drawn(seed, shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(sigma=st.floats(0.05, 0.99), share=st.floats(0.05, 0.95), level=st.floats(0.1, 1.5))
def test_density_is_torchs(sigma, share, level):
    step = sde_step(drawn(0), drawn(1), sigma, share * sigma, largest=0.99, noise_level=level)
    following = step.at(drawn(2))
    expected = torch.distributions.Normal(step.mean, step.deviation).log_prob(following).flatten(1).mean(dim=1)
    torch.testing.assert_close(step.log_probability(following), expected)


@given(sigma=st.floats(0.05, 1.0), share=st.floats(0.0, 0.95))
def test_without_noise_it_is_eulers_step(sigma, share):
    step = sde_step(drawn(0), drawn(1), sigma, share * sigma, largest=0.9, noise_level=0.0)
    torch.testing.assert_close(step.mean, drawn(1) + (share * sigma - sigma) * drawn(0))
    assert step.deviation == 0
    with pytest.raises(ValueError, match="no density"):
        step.log_probability(drawn(2))


def test_published_step():
    """Mean and deviation as the paper's equation (9) has them, written out."""
    sigma, following, level = 0.8, 0.7, 0.7
    step = sde_step(drawn(0), drawn(1), sigma, following, largest=0.9, noise_level=level)
    s, dt = level * math.sqrt(sigma / (1 - sigma)), following - sigma
    v, x = drawn(0), drawn(1)
    torch.testing.assert_close(step.mean, x + (v + s**2 / (2 * sigma) * (x + (1 - sigma) * v)) * dt)
    assert step.deviation == pytest.approx(s * math.sqrt(-dt))


def test_pole_at_one_is_replaced():
    first, second = (sde_step(drawn(0), drawn(1), sigma, 0.8, largest=0.9).diffusion for sigma in (1.0, 0.9))
    assert first == pytest.approx(0.7 * math.sqrt(1 / 0.1)) and second == pytest.approx(0.7 * math.sqrt(0.9 / 0.1))


@pytest.mark.parametrize("level", [0.0, 0.7])
def test_marginals_are_those_of_the_flow(level):
    """Gaussian data: the exact velocity is linear, and both samplers end with the data's mean and deviation."""
    mean, deviation, steps = 1.5, 0.5, 400

    def velocity(x, sigma):
        variance = (1 - sigma) ** 2 * deviation**2 + sigma**2
        centred = x - (1 - sigma) * mean
        clean = mean + (1 - sigma) * deviation**2 / variance * centred
        noise = sigma / variance * centred
        return noise - clean

    sigmas = list(np.linspace(1, 0, steps + 1))
    final = rollout(
        velocity, drawn(5, (4000, 1, 1, 1)), sigmas, noise_level=level, generator=torch.Generator().manual_seed(6)
    ).latents
    # Standard errors of 4,000 draws are 0.008 and 0.006; the discretisation has the order of a step.
    assert abs(float(final.mean()) - mean) < 0.04 and abs(float(final.std()) - deviation) < 0.03


def test_rollout_keeps_what_the_densities_need():
    sigmas = [1.0, 0.75, 0.5, 0.25, 0.0]
    made = rollout(
        lambda x, sigma: sigma * x, drawn(0), sigmas, noise_level=0.7, generator=torch.Generator().manual_seed(1)
    )
    assert len(made.states) == 5 and sorted(made.log_probabilities) == [0, 1, 2]
    for number, density in made.log_probabilities.items():
        step = sde_step(
            sigmas[number] * made.states[number], made.states[number], sigmas[number], sigmas[number + 1], largest=0.75
        )
        torch.testing.assert_close(density, step.log_probability(made.states[number + 1]))
    torch.testing.assert_close(made.latents, made.states[3] * (1 - 0.25 * 0.25))


def test_only_the_first_steps_are_stochastic():
    sigmas = [1.0, 0.75, 0.5, 0.25, 0.0]
    made = rollout(
        lambda x, sigma: sigma * x,
        drawn(0),
        sigmas,
        noise_level=0.7,
        generator=torch.Generator().manual_seed(1),
        stochastic_steps=1,
    )
    assert sorted(made.log_probabilities) == [0]
    torch.testing.assert_close(made.latents, made.states[1] * (1 - 0.75 * 0.25) * (1 - 0.5 * 0.25) * (1 - 0.25 * 0.25))
