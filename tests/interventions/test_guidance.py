"""A guided sampler draws from the tilted density, where that is known; a scale of zero changes nothing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from probing.backbones import Conditioning
from probing.errors import UserError
from probing.interventions import guide

MEAN, DEVIATION, SLOPE = 1.5, 0.5, 2.0
"""Data and reward: x0 is normal, its reward is SLOPE · x0, so the tilted density is normal, SLOPE·DEVIATION² higher."""
WORDS = Conditioning({"words": torch.zeros(2000, 1)}, {})


def shrink(sigma):
    """dE[x0 | x]/dx."""
    return (1 - sigma) * DEVIATION**2 / ((1 - sigma) ** 2 * DEVIATION**2 + sigma**2)


def velocity(noisy, conditioning, sigma):
    centred = noisy - (1 - sigma) * MEAN
    clean = MEAN + shrink(sigma) * centred
    return (noisy - clean) / sigma


def exact(noisy, clean, conditioning, sigma):
    # log E[exp(a·x0) | x] is a·E[x0 | x] and a constant, for normal x0.
    return torch.full_like(noisy, SLOPE * shrink(sigma))


def sampled(of, steps=400, items=2000):
    x = torch.randn(items, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigmas = np.linspace(1, 0, steps + 1)
    for sigma, following in pairwise(sigmas):
        x = x + (following - sigma) * of(x, WORDS, float(sigma))
    return x.flatten().numpy()


@pytest.mark.parametrize("scale", [-1.0, 0.5, 1.0])
def test_guided_samples_have_the_tilted_density(scale):
    plain = sampled(velocity)
    guided = sampled(guide(velocity, exact, scale, 2000, levels=(0.0, 0.999)))
    # The same noise: the shift has no sampling error, and the deviation is that of the data.
    assert np.mean(guided - plain) == pytest.approx(scale * SLOPE * DEVIATION**2, abs=0.01)
    assert guided.std() == pytest.approx(plain.std(), rel=0.02)


def test_a_scale_of_zero_and_other_levels_change_nothing():
    plain = sampled(velocity, steps=10)
    assert np.array_equal(sampled(guide(velocity, exact, 0.0, 2000), steps=10), plain)
    at_one_level = guide(velocity, exact, 1.0, 2000, levels=(0.25, 0.35))
    changed = []
    for sigma in (0.2, 0.3, 0.4):
        x = torch.ones(2000, 1, 1, 1, dtype=torch.float64)
        changed.append(not torch.equal(at_one_level(x, WORDS, sigma), velocity(x, WORDS, sigma)))
    assert changed == [False, True, False]


def test_the_estimate_is_the_models_and_rows_of_the_empty_prompt_get_the_same_push():
    seen = []

    def gradient(noisy, clean, conditioning, sigma):
        seen.append((clean, conditioning))
        return torch.ones_like(noisy)

    words = Conditioning({"words": torch.arange(6.0)[:, None]}, {})
    x = torch.arange(6.0, dtype=torch.float64)[:, None, None, None]
    guided = guide(velocity, gradient, 1.0, 3)(x, words, 0.5)
    plain = velocity(x, words, 0.5)
    torch.testing.assert_close(guided, plain - 1.0)
    torch.testing.assert_close(seen[0][0], (x - 0.5 * plain)[3:])
    assert seen[0][1].tensors["words"].flatten().tolist() == [3.0, 4.0, 5.0]


def test_levels_are_checked():
    with pytest.raises(UserError, match=r"Got levels 0 to 1 for guidance, expected them within \[0, 1\)"):
        guide(velocity, exact, 1.0, 1, levels=(0.0, 1.0))


def test_another_number_of_rows_is_refused():
    with pytest.raises(UserError, match="Got 3 rows for guidance, expected 2, or twice as many"):
        guide(velocity, exact, 1.0, 2)(torch.ones(3, 1, 1, 1), WORDS, 0.5)
