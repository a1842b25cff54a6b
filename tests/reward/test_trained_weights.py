"""Weights of a training: small steps add up in half precision, and the mean is the exponential one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from probing.reward.trained_weights import TrainedWeights


def steps(parameter, *, ema=0.0, count=100, rate=1e-4):
    weights = TrainedWeights([{"params": [parameter], "lr": rate}], ema=ema)
    optimizer = torch.optim.SGD(weights.groups, lr=rate)
    for _ in range(count):
        parameter.grad = torch.ones_like(parameter)
        weights.take_gradients()
        optimizer.step()
        weights.after_step()
    return weights


def test_steps_below_half_precision_add_up():
    """A bfloat16 number near 1 moves by 1/128 or not at all; 100 steps of 1e-4 are 0.01."""
    parameter = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    lost = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    weights = steps(parameter)
    optimizer = torch.optim.SGD([lost], lr=1e-4)
    for _ in range(100):
        lost.grad = torch.ones_like(lost)
        optimizer.step()
    assert torch.equal(lost, torch.ones_like(lost))
    torch.testing.assert_close(weights.values[0].detach(), torch.full((3,), 0.99))
    assert parameter.dtype == torch.bfloat16 and torch.equal(parameter, weights.values[0].bfloat16())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_full_precision_has_no_copy(dtype):
    parameter = nn.Parameter(torch.ones(2, dtype=dtype))
    weights = steps(parameter)
    assert weights.values[0] is parameter
    torch.testing.assert_close(parameter.detach(), torch.full((2,), 0.99, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mean_is_used_for_the_time_of_a_block(dtype):
    parameter = nn.Parameter(torch.ones(2, dtype=dtype))
    weights = steps(parameter, ema=0.5, count=3, rate=0.1)
    # 1, then 0.9, 0.8, 0.7, each half of the next mean.
    expected = torch.full((2,), 0.5 * (0.5 * (0.5 * 1 + 0.5 * 0.9) + 0.5 * 0.8) + 0.5 * 0.7)
    after = parameter.detach().clone()
    with weights.averaged():
        torch.testing.assert_close(parameter.detach(), expected.to(dtype))
    assert torch.equal(parameter, after)
    with steps(nn.Parameter(torch.ones(1))).averaged():
        pass


def test_values_can_be_put_back():
    parameter = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    weights = steps(parameter, count=50)
    kept = weights.copy()
    weights.set([torch.zeros(2)])
    assert torch.equal(parameter.detach().float(), torch.zeros(2))
    weights.set(kept)
    torch.testing.assert_close(weights.values[0].detach(), torch.full((2,), 0.995))
