"""Noise depends on (seed, key) alone, and the noise level is the requested one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from probing.errors import UserError
from probing.features.noise import add_noise, item_noise


@given(seed=st.integers(0, 2**31), key=st.text(min_size=1, max_size=20))
def test_the_same_key_gives_the_same_bytes(seed, key):
    assert item_noise(seed, key, (2, 3)).tobytes() == item_noise(seed, key, (2, 3)).tobytes()


def test_seed_and_key_do_not_run_together():
    draws = [item_noise(*pair, (64,)) for pair in [(0, "a"), (1, "a"), (0, "b"), (1, "1a"), (11, "a")]]
    for i in range(len(draws)):
        for j in range(i):
            assert abs(np.corrcoef(draws[i], draws[j])[0, 1]) < 0.5


def test_the_noise_of_a_key_never_changes():
    """Stores made on other machines and days are compared with ours: the stream must not change."""
    expected = np.array(
        [0.42330145835876465, -0.8373942971229553, 0.9662696123123169, -2.3879616260528564], dtype=np.float32
    )
    np.testing.assert_array_equal(item_noise(7, "item", (4,)), expected)


def test_noise_is_standard_normal():
    sample = item_noise(0, "many", (20_000,))
    assert stats.kstest(sample, "norm").pvalue > 1e-3


@given(sigma=st.floats(0, 1))
def test_the_mixture_is_the_flow_matching_one(sigma):
    clean, noise = torch.tensor([[[[2.0]]]]), torch.tensor([[[[-3.0]]]])
    assert add_noise(clean, noise, sigma).item() == pytest.approx((1 - sigma) * 2 + sigma * -3, abs=1e-5)


@pytest.mark.parametrize("sigma", [-0.01, 1.01, 5.0, 500.0, float("nan")])
def test_a_timestep_given_as_sigma_is_refused(sigma):
    with pytest.raises(UserError, match=r"in \[0, 1\]"):
        add_noise(torch.zeros(1), torch.zeros(1), sigma)
