"""Muon against torch's implementation, which computes in bfloat16, and against the SVD."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from probing.testbed.recipes.muon import Muon, orthogonalise

SHAPES = ((12, 12), (24, 12), (12, 24), (12, 12), (5, 40))


def test_steps_equal_those_of_torch():
    torch.manual_seed(0)
    ours, theirs = (
        [nn.Parameter(torch.linspace(-1, 1, rows * columns).view(rows, columns)) for rows, columns in SHAPES]
        for _ in range(2)
    )
    options = {"lr": 0.01, "weight_decay": 0.1, "momentum": 0.9}
    optimizers = Muon(ours, **options), torch.optim.Muon(theirs, **options)
    for _ in range(6):
        before = [parameter.detach().clone() for parameter in ours]
        for parameter, reference in zip(ours, theirs, strict=True):
            parameter.grad = torch.randn_like(parameter)
            reference.grad = parameter.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
        for start, parameter, reference in zip(before, ours, theirs, strict=True):
            # bfloat16 has eight bits: five iterations agree to a few per cent.
            assert (parameter - reference).norm() < 0.05 * (parameter - start).norm()
        for parameter, reference in zip(ours, theirs, strict=True):
            reference.data.copy_(parameter.data)


@pytest.mark.parametrize("shape", [(8, 8), (8, 30)])
def test_orthogonalising_keeps_singular_vectors(shape):
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(rng.standard_normal((shape[0], shape[0])))
    v, _ = np.linalg.qr(rng.standard_normal((shape[1], shape[0])))
    values = np.geomspace(3, 0.3, shape[0])
    given = torch.from_numpy(np.stack([u * values @ v.T, 1000 * u * values[::-1] @ v.T]))
    for result in orthogonalise(given).numpy():
        rotated = u.T @ result @ v
        assert np.abs(rotated - np.diag(np.diag(rotated))).max() < 1e-6
        assert np.diag(rotated).min() > 0.6 and np.diag(rotated).max() < 1.3


def test_parameter_without_gradient_does_not_change():
    parameters = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))]
    parameters[0].grad = torch.eye(2)
    Muon(parameters, lr=0.1, weight_decay=0.1).step()
    assert torch.equal(parameters[1], torch.ones(2, 2)) and not torch.equal(parameters[0], torch.ones(2, 2))


def test_vectors_are_refused():
    with pytest.raises(ValueError, match="matrices only"):
        Muon([nn.Parameter(torch.ones(3))], lr=0.1)
